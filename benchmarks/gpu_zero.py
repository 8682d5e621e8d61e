"""DeepSpeed on a GPU, one process with NCCL: does it train as plain torch does, and how fast?

    python benchmarks/gpu_zero.py            # 8 blocks of SmolLM2-135M's shape
    python benchmarks/gpu_zero.py --tiny     # on a CPU, one of the cases: what a test runs

Every ZeRO stage, and with offloading to host memory, against the engine for one process: losses,
gradient norms and weights after some steps; then the same once more with the state moved to a new
engine in between, as a resumed run does. First in fp32, where the tolerance holds; bf16 is
reported. Exit code 1: something is further apart than the tolerance.

Not covered: several GPUs.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_model import optimizer_batch, variant
from benchmarks.gpu_pairs import relative
from w2s_ray.models.packed_attention import use_if_exact
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora
from w2s_ray.training.deepspeed_engine import DeepSpeedEngine
from w2s_ray.training.engine import Adam, Batch, Engine, TorchEngine
from w2s_ray.training.loop import train
from w2s_ray.training.zero_config import Zero

SMOL: dict[str, Any] = {  # with 8 of its 30 blocks
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
}
TINY = SMOL | {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
TINY |= {"intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 500}
CASES = [Zero(0), Zero(1), Zero(2), Zero(3), Zero(1, "optimizer"), Zero(3, "parameters")]
STEPS = 6
RATE = 1e-4
TOLERANCE = {"losses": 1e-5, "norms": 1e-5, "weights": 1e-2}  # fp32
"""Adam divides by the size of a gradient, so a weight whose gradient is little more than rounding
moves by a whole rate in either direction: its weights' tolerance is larger than its losses'."""


class Run(NamedTuple):
    """A short training run.

    Attributes:
        losses, norms: of the steps.
        changes: of the weights by all steps, by name.
        milliseconds: median of a step.
    """

    losses: Tensor
    norms: Tensor
    changes: dict[str, Tensor]
    milliseconds: float


def engine_of(zero: Zero | None, config: dict[str, Any], dtype: torch.dtype, device: str) -> Engine:
    """An engine with a model of its own: DeepSpeed's, or with None the one for one process."""
    torch.manual_seed(0)
    backbone = LlamaModel(LlamaConfig(**config, attn_implementation="sdpa", use_cache=False))
    backbone.to(device=device, dtype=dtype).train()  # type: ignore[arg-type]
    if not use_if_exact(backbone):
        raise RuntimeError("packed attention is off: see the warning above")
    scorer = Scorer(backbone, config["hidden_size"], 2, 2, seed=1)
    parameters = set_trainable(scorer, "full", Lora(), 0)
    adam = Adam(clip_norm=1.0)
    if zero is None:
        return TorchEngine(scorer, parameters, adam)
    return DeepSpeedEngine(scorer, parameters, adam, zero=zero)


def run(
    zero: Zero | None,
    config: dict[str, Any],
    dtype: torch.dtype,
    device: str,
    batches: Sequence[list[Batch]],
    names: Sequence[str],
    moved_at: int | None = None,
) -> Run:
    """Trains on ``batches``; the state moves to a new engine before step ``moved_at``."""
    losses: list[float] = []
    norms: list[float] = []
    times: list[float] = []
    engine = engine_of(zero, config, dtype, device)
    before = dict(engine.whole(names))
    for step, batch in enumerate(batches):
        if step == moved_at:
            engine = _moved(engine, engine_of(zero, config, dtype, device), step)
        began = time.perf_counter()
        # a constant rate, so that one step is the same step however many follow
        curve = train(
            engine, [batch], _OBJECTIVE, total_steps=1, learning_rate=RATE, schedule="constant"
        )
        times.append(time.perf_counter() - began)
        losses += curve.loss
        norms += curve.gradient_norm
    changes = {name: after - before[name] for name, after in engine.whole(names)}
    engine.close()
    tensors = (torch.tensor(values, dtype=torch.float64) for values in (losses, norms))
    return Run(*tensors, changes, 1e3 * median(times[1:]))


_OBJECTIVE = Objective("reverse_kl")


def _moved(old: Engine, new: Engine, updates: int) -> Engine:
    """The state of ``old`` in ``new``, fragment by fragment, by way of host memory."""
    kept = [
        {part: tensor.detach().cpu().clone() for part, tensor in fragment.parts.items()}
        for fragment in old.fragments()
    ]
    old.close()
    for fragment, parts in zip(new.fragments(), kept, strict=True):
        for part, tensor in fragment.parts.items():
            tensor.detach().copy_(parts[part])
    new.restored(updates)
    return new


def compare(one: Run, other: Run) -> dict[str, float]:
    """Largest relative differences of losses and norms, and of the change of all weights."""
    apart = sum(float((one.changes[n] - c).square().sum()) for n, c in other.changes.items())
    whole = sum(float(change.square().sum()) for change in other.changes.values())
    return {
        "losses": relative(one.losses, other.losses),
        "norms": relative(one.norms, other.norms),
        "weights": (apart / whole) ** 0.5,
    }


def main() -> int:
    """Print one line per case and one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any device")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")
    config, limit, size = (TINY, 32, "eager:256x2") if given.tiny else (SMOL, 128, "eager:2048x2")
    batches = [
        optimizer_batch(variant(size), limit, config["vocab_size"], seed) for seed in range(STEPS)
    ]
    names = _names(config)
    report: dict[str, Any] = {"device": device, "torch": torch.__version__, "cases": []}
    agree = True
    cases = CASES[-1:] if given.tiny else CASES
    for dtype in (torch.float32, torch.bfloat16):
        plain = run(None, config, dtype, device, batches, names)
        for zero in cases:
            seen = run(zero, config, dtype, device, batches, names)
            moved = run(zero, config, dtype, device, batches, names, moved_at=STEPS // 2)
            apart, resumed = compare(seen, plain), compare(moved, seen)
            ratio = seen.milliseconds / plain.milliseconds
            exact = dtype == torch.float32
            agree &= not exact or all(
                max(apart[what], resumed[what]) <= limit for what, limit in TOLERANCE.items()
            )
            name = f"{str(dtype).removeprefix('torch.')}, ZeRO {zero.stage}, offload {zero.offload}"
            print(
                f"{name}: from plain torch {_line(apart)}; resumed {_line(resumed)}; "
                f"{seen.milliseconds:.1f} ms a step, {ratio:.2f} × plain torch",
                flush=True,
            )
            report["cases"].append(
                {"case": name, "apart": apart, "resumed": resumed, "times_plain": ratio}
            )
    print(json.dumps(report))
    return 0 if agree else 1


def _names(config: dict[str, Any]) -> list[str]:
    """Names of all parameters, from a model without memory."""
    with torch.device("meta"):
        backbone = LlamaModel(LlamaConfig(**config))
    scorer = Scorer(backbone, config["hidden_size"], 2, 2, seed=1)
    return [name for name, _ in scorer.named_parameters()]


def _line(apart: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in apart.items())


if __name__ == "__main__":
    sys.exit(main())
