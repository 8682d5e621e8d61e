"""Full training of a 7B model on one GPU: tokens/s, MFU, and predicted against measured memory.

    python benchmarks/gpu_train.py            # Qwen2.5-7B's shape; a GPU of 140 GB
    python benchmarks/gpu_train.py --layers 2 --seconds 2     # does it all run?
    python benchmarks/gpu_train.py --tiny     # on a CPU, in seconds: what a test runs

Needs torch and transformers alone; the weights are random, so nothing is downloaded. Real parts of
the project train: ``TorchEngine`` (bf16 weights, fp32 masters, fused Adam), ``train``, ``Scorer``,
packed pairs with shared prompts, the reverse KL. Exit code 1: two ways of running a step disagree
(``gpu_checks.py``), or no variant ran.

MFU is the model's operations (``gpu_model.model_flops``: nothing computed twice, the embedding not
counted) a second, over the rate of an 8192³ bf16 product measured in the same run, the better of
before and after. The time of a step is all of it: the stream, passes, update.
"""

# ruff: noqa: E402
import argparse
import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # little is left over

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.modules["tests"] = ModuleType("tests")  # ours, whatever packages have brought along
sys.modules["tests"].__path__ = [str(ROOT / "tests")]

from benchmarks.gpu_checks import checks
from benchmarks.gpu_gemm import block_rate, square_rate
from benchmarks.gpu_memory import predicted_bytes
from benchmarks.gpu_model import (
    QWEN_7B,
    TINY,
    Variant,
    build,
    model_flops,
    multiplied,
    optimizer_batch,
    set_up,
    variant,
)
from benchmarks.gpu_profile import kernel_milliseconds
from w2s_ray.models.scorer import Scorer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Batch, TorchEngine
from w2s_ray.training.loop import train

MFU, MEMORY = 0.55, 0.10  # the targets: at least, at most
VARIANTS = (
    "compiled.9:12288x1",
    "eager-checkpointed:8192x2",
    "compiled.9:4096x4",
    "compiled-checkpointed:16384x1",
    "compiled:8192x1",
    "eager:6144x1",
    "compiled.5:16384x1",
)
TINY_VARIANTS = ("eager:256x2", "eager-checkpointed:256x2")
BATCHES = 3  # different optimizer batches, in turn


class TimedEngine(TorchEngine):
    """Also tells how long each update took; it waits for the device before, as the loop has."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.update_seconds: list[float] = []

    def step(self, learning_rate: float) -> float:
        started = time.perf_counter()
        norm = super().step(learning_rate)  # waits for the device to tell the norm
        self.update_seconds.append(time.perf_counter() - started)
        return norm

    def forget(self) -> None:
        """Drops what a pass that failed has left."""
        for parameter in (*self._low, *self._trained):
            parameter.grad = None


def run_variant(
    engine: TimedEngine, model: Any, chosen: Variant, limit: int, seconds: float
) -> dict[str, Any]:
    """Warms up, then trains for about ``seconds``; returns what the last line tells of it."""
    batches = [
        optimizer_batch(chosen, limit, model.config.vocab_size, seed) for seed in range(BATCHES)
    ]
    set_up(model, chosen.keep, chosen.checkpoint_every)
    _free()

    def steps(count: int) -> tuple[list[float], list[float]]:
        """Trains ``count`` steps: seconds of each, losses."""
        marks = [time.perf_counter()]
        curve = train(
            engine,
            islice(_cycle(batches), count),
            Objective("reverse_kl"),
            total_steps=count,
            learning_rate=1e-5,
            schedule="constant",
            progress=lambda numbers: marks.append(time.perf_counter()),
        )
        return [b - a for a, b in pairwise(marks)], curve.loss

    started = time.perf_counter()
    warm, _ = steps(BATCHES)
    warm_seconds = time.perf_counter() - started
    graphs, updates = _graphs(), len(engine.update_seconds)
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    count = BATCHES * max(1, round(seconds / (BATCHES * warm[-1])))
    taken, losses = steps(count)
    rounds = count // BATCHES  # each of the same work
    tokens = sum(batch.tokens for passes in batches for batch in passes)
    flops = sum(model_flops(passes, model) for passes in batches)
    total = sum(taken)
    measured = torch.cuda.max_memory_allocated() if on_gpu() else None
    reserved = torch.cuda.max_memory_reserved() if on_gpu() else None
    kinds, longest = _profiled(lambda: steps(1)) if on_gpu() else ({}, [])
    return {
        "tokens_per_second": rounds * tokens / total,
        "flops": rounds * flops / total,
        "step_seconds": taken,
        "update_seconds": median(engine.update_seconds[updates:]),
        "warm_up_seconds": warm_seconds,
        "compiled_while_timed": _graphs() - graphs,
        "losses": losses[-BATCHES:],
        "measured_bytes": measured,
        "reserved_bytes": reserved,
        "kernel_milliseconds": kinds,  # of one more step, profiled
        "longest_kernels": longest,
    }


def _profiled(run: Callable[[], object]) -> tuple[dict[str, float], list[str]]:
    try:
        return kernel_milliseconds(run)
    except Exception as error:  # what has been timed stands without it
        return {}, [f"not profiled: {type(error).__name__}: {str(error)[:200]}"]


def on_gpu() -> bool:
    return torch.cuda.is_available()


def _cycle(batches: list[list[Batch]]) -> Iterator[list[Batch]]:
    while True:
        yield from batches


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _free() -> None:
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


def _say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any device")
    parser.add_argument("--layers", type=int, help="blocks, to try whether it runs")
    parser.add_argument("--seconds", type=float, default=12.0, help="to time a variant, about")
    parser.add_argument("--budget", type=float, default=480.0, help="no variant starts after")
    parser.add_argument("--limit", type=int, default=512, help="tokens of a text at most")
    parser.add_argument("--variants", help="comma between, e.g. compiled-checkpointed:8192x2")
    parser.add_argument("--out", type=Path, help="folder for the JSON object, after each variant")
    given = parser.parse_args()
    given.variants = [
        variant(name)
        for name in (
            given.variants.split(",")
            if given.variants
            else TINY_VARIANTS
            if given.tiny
            else VARIANTS
        )
    ]
    if given.tiny:
        given.seconds, given.limit = min(given.seconds, 0.5), min(given.limit, 64)
    return given


def main() -> int:
    """Prints one line a check, one a variant, and one JSON object at the end."""
    began = time.perf_counter()
    given = _options()
    device = "cuda" if on_gpu() else "cpu"
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 64  # of one process: small and large blocks, each keep
    config = dict(TINY if given.tiny else QWEN_7B)
    config["num_hidden_layers"] = given.layers or config["num_hidden_layers"]
    told: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu() else platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "layers": config["num_hidden_layers"],
        "checks": {},
        "variants": {},
    }
    agree = True
    for name, apart, most in checks(device, given.variants):
        told["checks"][name] = {"apart": apart, "most": most}
        agree &= apart <= most
        spent = time.perf_counter() - began
        _say(f"{name}: {apart:.1e} apart (at most {most:g}); {spent:.0f} s so far")
    size, seconds = (8192, 2.0) if on_gpu() else (512, 0.05)
    before = square_rate(size, device, seconds)

    started = time.perf_counter()
    model = build(config, torch.bfloat16, device)
    scorer = Scorer(model, config["hidden_size"], 2, 2, seed=0)
    engine = TimedEngine(scorer, list(scorer.parameters()), Adam())
    total = sum(p.numel() for p in scorer.parameters())
    told |= {"parameters": total, "multiplied_parameters": multiplied(model)}
    shapes = block_rate(model.layers[0], 4096 if on_gpu() else 256, device, seconds)
    _say(
        f"{total / 1e9:.3f}B parameters, {multiplied(model) / 1e9:.3f}B of them multiplied; made "
        f"in {time.perf_counter() - started:.1f} s; products: {before / 1e12:.4g} TFLOP/s at "
        f"{size}³, {shapes / 1e12:.4g} in a block's shapes; "
        f"{time.perf_counter() - began:.0f} s so far"
    )
    for chosen in given.variants:
        if time.perf_counter() - began > given.budget:
            told["variants"][chosen.name] = {"error": "no time left"}
            continue
        try:
            found = run_variant(engine, model, chosen, given.limit, given.seconds)
        except Exception as error:  # out of memory, a kernel that does not compile, …
            found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
        found["predicted_bytes"] = predicted_bytes(config, chosen)
        engine.forget()
        told["variants"][chosen.name] = found
        _say(f"{_line(chosen, found, before)}; {time.perf_counter() - began:.0f} s so far")
        for text in found.get("longest_kernels", []):
            _say(f"    {text}")
        _save(given.out, told)
    engine.forget()
    _free()
    after = square_rate(size, device, seconds)
    gemm = max(before, after)
    told |= {"gemm_flops": {"before": before, "after": after, "block_shapes": shapes}}
    ran = {n: v for n, v in told["variants"].items() if "error" not in v}
    for found in ran.values():
        found["mfu"] = found["flops"] / gemm
        found["mfu_of_block_shapes"] = found["flops"] / shapes
        if found["measured_bytes"]:
            found["memory_error"] = found["predicted_bytes"] / found["measured_bytes"] - 1
    told["best"] = max(ran, key=lambda name: ran[name]["mfu"]) if ran else None
    if ran and on_gpu() and not given.tiny:
        _say(_verdict(told["best"], ran[told["best"]], gemm))
    _save(given.out, told)
    print(json.dumps(told))
    return 0 if agree and ran else 1


def _line(chosen: Variant, found: dict[str, Any], gemm: float) -> str:
    gib = 2.0**30
    predicted = found["predicted_bytes"]
    said = f"{predicted / gib:.1f} GiB predicted"
    if "error" in found:
        return f"{chosen.name}: {found['error']}; {said}"
    measured = found["measured_bytes"]
    return (
        f"{chosen.name}: {found['tokens_per_second']:.0f} tokens/s, MFU "
        f"{found['flops'] / gemm:.1%}, step {median(found['step_seconds']) * 1e3:.0f} ms, of it "
        f"the update {found['update_seconds'] * 1e3:.0f}, warm-up {found['warm_up_seconds']:.0f} s "
        f"({found['compiled_while_timed']} graphs compiled after it); {said}, "
        + (f"{measured / gib:.1f} used" if measured else "use measured on a GPU only")
        + "".join(f"; {kind} {ms:.0f} ms" for kind, ms in found["kernel_milliseconds"].items())
    )


def _verdict(name: str, found: dict[str, Any], gemm: float) -> str:
    return (
        f"best: {name}, {found['tokens_per_second']:.0f} tokens/s, MFU {found['mfu']:.1%} of "
        f"{gemm / 1e12:.0f} TFLOP/s (target {MFU:.0%}), memory predicted "
        f"{found['memory_error']:+.1%} off (target ±{MEMORY:.0%})"
    )


def _save(folder: Path | None, told: dict[str, Any]) -> None:
    if folder is not None:
        (folder / "gpu_train.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    sys.exit(main())
