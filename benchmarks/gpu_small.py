"""Small steps on a GPU: a small model, 16 short pairs. How far do launches bound them?

    python benchmarks/gpu_small.py                  # SmolLM2-135M's shape
    python benchmarks/gpu_small.py --processes 8    # that many at once on one GPU
    python benchmarks/gpu_small.py --tiny           # on a CPU, in seconds: what a test runs

Full training of a random model by the project's engine, packed attention and loss, with eager and
with compiled blocks. A line of JSON for each: wall time of a step, the time that the GPU computes
in it, kernels, tokens per second, and the steps per second of all processes together.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_pairs import SHAPES, Pairs, draw
from w2s_ray.models.compiled import compile_blocks
from w2s_ray.models.packed_attention import use_if_exact
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora
from w2s_ray.training.engine import Adam, TorchEngine

SMOL: dict[str, Any] = {  # SmolLM2-135M
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
}
TINY = SMOL | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
BATCHES = 12
PROFILED = 3  # steps


class Steps:
    """A random model, its engine, and batches of pairs like those of HH-RLHF."""

    def __init__(self, mode: str, config: dict[str, Any], pairs: int, device: str) -> None:
        torch.manual_seed(0)
        model = LlamaModel(LlamaConfig(**config, attn_implementation="sdpa", use_cache=False))
        model = model.to(device=device, dtype=torch.bfloat16).train()
        if not use_if_exact(model):
            raise RuntimeError("packed attention is off: see the warning above")
        scorer = Scorer(model, config["hidden_size"], 2, 2, seed=0)
        self._engine = TorchEngine(scorer, set_trainable(scorer, "full", Lora(), 0), Adam())
        if mode == "compiled":
            compile_blocks(model)
        self.batches = [
            draw(pairs, SHAPES["hh-harmless"], config["vocab_size"], seed, device)
            for seed in range(BATCHES)
        ]
        self._labels = torch.full((pairs, 2), 0.5, device=device)
        self._objective = Objective("forward_kl")

    def step(self, pairs: Pairs) -> float:
        """One optimizer step; the returned norm waits for the GPU."""
        logits = self._engine.logits({"input_ids": pairs.ids, "segments": pairs.segments})
        self._engine.backward(self._objective(logits, self._labels, alpha=0.0).mean(), last=True)
        return self._engine.step(1e-5)


def measure(mode: str, config: dict[str, Any], pairs: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step, and what the GPU does in it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.perf_counter()
    steps = Steps(mode, config, pairs, device)
    for batch in steps.batches[:5]:
        steps.step(batch)
    warm = time.perf_counter() - began
    times: list[float] = []
    while sum(times) < seconds:
        for batch in steps.batches:
            began = time.perf_counter()
            steps.step(batch)
            times.append(time.perf_counter() - began)
    tokens = sum(len(batch.ids) for batch in steps.batches) / len(steps.batches)
    measured = {
        "mode": mode,
        "pairs": pairs,
        "tokens": tokens,
        "warm_seconds": warm,
        "milliseconds": 1e3 * median(times),
        "steps_per_second": len(times) / sum(times),
    }
    return measured | (_on_gpu(steps) if device == "cuda" else {})


def _on_gpu(steps: Steps) -> dict[str, float]:
    """Milliseconds that the GPU computes in a step, and the number of its kernels."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for batch in steps.batches[:PROFILED]:
            steps.step(batch)
    kernels = [e for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.time_range.elapsed_us() for event in kernels)
    return {"gpu_milliseconds": busy / PROFILED / 1e3, "kernels": len(kernels) / PROFILED}


def main() -> int:
    """Print one JSON object per mode."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any device")
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"])
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of steps, in each mode")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    if given.processes > 1:
        return _together(given)
    config = SMOL
    if given.tiny:
        config = TINY
        given.pairs, given.seconds = 2, 0.1
    for mode in given.modes:
        print(json.dumps(measure(mode, config, given.pairs, given.seconds)), flush=True)
    return 0


def _together(given: argparse.Namespace) -> int:
    """Starts the processes for one mode after the other, and sums their steps."""
    for mode in given.modes:
        command = [sys.executable, __file__, "--modes", mode, "--pairs", str(given.pairs)]
        command += ["--seconds", str(given.seconds), *(["--tiny"] if given.tiny else [])]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for _ in range(given.processes)
        ]
        outputs = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            return 1
        rates = [json.loads(output.splitlines()[-1])["steps_per_second"] for output in outputs]
        print(json.dumps({"mode": mode, "steps_per_second": sum(rates), "each": rates}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
