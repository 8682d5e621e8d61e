"""Full training of a 7B model on one GPU: tokens/s, MFU, and predicted against measured memory.

    python benchmarks/gpu_train.py            # Qwen2.5-7B's shape; a GPU of 140 GB
    python benchmarks/gpu_train.py --layers 2 --seconds 2     # a quick try
    python benchmarks/gpu_train.py --tiny     # on a CPU, in seconds: what a test runs

Needs only torch and transformers; the weights are random, so nothing is downloaded. The project's
own parts train: ``TorchEngine`` (bf16 weights, fp32 master weights, fused Adam), ``train``,
``Scorer``, packed pairs with shared prompts, the reverse KL. The exit code is 1 if two variants of
a step disagree (``gpu_checks.py``) or no variant ran.

MFU is the model's FLOP/s (``gpu_model.model_flops``: without recomputation and embedding) divided
by the rate of an 8192³ bf16 product in the same run, the higher of before and after. The time of a
step includes everything: the stream, forward and backward of its micro-batches, the update.
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # against fragmentation

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.modules["tests"] = ModuleType("tests")  # ours, even if a package has one of that name
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
from benchmarks.gpu_profile import Profile, profile_kernels
from w2s_ray.models.scorer import Scorer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Batch, TorchEngine
from w2s_ray.training.loop import train

MFU_TARGET, MEMORY_TARGET = 0.55, 0.10  # at least; at most
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
BATCHES = 3  # different optimizer batches, used in turn


class TimedEngine(TorchEngine):
    """A torch engine that measures each update, after waiting for the device as the loop does."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.update_seconds: list[float] = []

    def step(self, learning_rate: float) -> float:
        started = time.perf_counter()
        norm = super().step(learning_rate)  # waits for the device to compute the norm
        self.update_seconds.append(time.perf_counter() - started)
        return norm

    def drop_gradients(self) -> None:
        """Free the gradients of a failed step."""
        for parameter in (*self._low, *self._trained):
            parameter.grad = None


def run_variant(
    engine: TimedEngine, model: Any, chosen: Variant, limit: int, seconds: float
) -> dict[str, Any]:
    """Warm up, then train for about ``seconds``; returns the entry of the final JSON object."""
    batches = [
        optimizer_batch(chosen, limit, model.config.vocab_size, seed) for seed in range(BATCHES)
    ]
    set_up(model, chosen.keep, chosen.checkpoint_every)
    _free()

    started = time.perf_counter()
    warm = _train(engine, batches, BATCHES)
    warm_seconds = time.perf_counter() - started
    graphs, updates = _graphs(), len(engine.update_seconds)
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    count = BATCHES * max(1, round(seconds / (BATCHES * warm.seconds[-1])))
    timed = _train(engine, batches, count)
    rounds = count // BATCHES  # each with the same work
    tokens = sum(batch.tokens for step in batches for batch in step)
    flops = sum(model_flops(step, model) for step in batches)
    total = sum(timed.seconds)
    measured = torch.cuda.max_memory_allocated() if on_gpu() else None
    reserved = torch.cuda.max_memory_reserved() if on_gpu() else None
    kernels = Profile({}, [])
    if on_gpu():
        kernels = _profiled(partial(_train, engine, batches, 1))
    return {
        "tokens_per_second": rounds * tokens / total,
        "flops": rounds * flops / total,
        "step_seconds": timed.seconds,
        "update_seconds": median(engine.update_seconds[updates:]),
        "warm_up_seconds": warm_seconds,
        "compiled_while_timed": _graphs() - graphs,
        "losses": timed.losses[-BATCHES:],
        "measured_bytes": measured,
        "reserved_bytes": reserved,
        "kernel_milliseconds": kernels.milliseconds,  # of one more step, profiled
        "longest_kernels": kernels.longest,
    }


class _Steps(NamedTuple):
    """The seconds and the loss of each optimizer step."""

    seconds: list[float]
    losses: list[float]


def _train(engine: TimedEngine, batches: list[list[Batch]], count: int) -> _Steps:
    """Train ``count`` steps on ``batches`` in turn."""
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
    return _Steps([b - a for a, b in pairwise(marks)], curve.loss)


def _profiled(run: Callable[[], object]) -> Profile:
    try:
        return profile_kernels(run)
    except Exception as error:  # the timings are valid without a profile
        return Profile({}, [f"not profiled: {type(error).__name__}: {str(error)[:200]}"])


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
    parser.add_argument("--layers", type=int, help="number of blocks, for a quick try")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="about how long to time a variant"
    )
    parser.add_argument(
        "--budget", type=float, default=480.0, help="seconds after which no variant starts"
    )
    parser.add_argument("--limit", type=int, default=512, help="maximum tokens of a text")
    parser.add_argument("--variants", help="comma-separated, e.g. compiled-checkpointed:8192x2")
    parser.add_argument(
        "--out", type=Path, help="folder for the JSON object, written after each variant"
    )
    given = parser.parse_args()
    names: Sequence[str] = TINY_VARIANTS if given.tiny else VARIANTS
    if given.variants:
        names = given.variants.split(",")
    given.variants = [variant(name) for name in names]
    if given.tiny:
        given.seconds, given.limit = min(given.seconds, 0.5), min(given.limit, 64)
    return given


def main() -> int:
    """Print one line per check, one per variant, and one JSON object at the end.

    It is one long sequence of measurements, each of which needs the state of the one before.
    """
    began = time.perf_counter()
    given = _options()
    device = "cuda" if on_gpu() else "cpu"
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 64  # per process: small and large blocks, each ``keep``
    config = dict(TINY if given.tiny else QWEN_7B)
    config["num_hidden_layers"] = given.layers or config["num_hidden_layers"]
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu() else platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "layers": config["num_hidden_layers"],
        "checks": {},
        "variants": {},
    }
    agree = True
    for name, difference, tolerance in checks(device, given.variants):
        report["checks"][name] = {"apart": difference, "most": tolerance}
        agree &= difference <= tolerance
        spent = time.perf_counter() - began
        _say(f"{name}: differ by {difference:.1e} (at most {tolerance:g}); {spent:.0f} s so far")
    size, seconds = (8192, 2.0) if on_gpu() else (512, 0.05)
    before = square_rate(size, device, seconds)

    started = time.perf_counter()
    model = build(config, torch.bfloat16, device)
    scorer = Scorer(model, config["hidden_size"], 2, 2, seed=0)
    engine = TimedEngine(scorer, list(scorer.parameters()), Adam())
    total = sum(p.numel() for p in scorer.parameters())
    report |= {"parameters": total, "multiplied_parameters": multiplied(model)}
    shapes = block_rate(model.layers[0], 4096 if on_gpu() else 256, device, seconds)
    _say(
        f"{total / 1e9:.3f}B parameters, {multiplied(model) / 1e9:.3f}B of them multiplied; built "
        f"in {time.perf_counter() - started:.1f} s; products: {before / 1e12:.4g} TFLOP/s at "
        f"{size}³, {shapes / 1e12:.4g} in a block's shapes; "
        f"{time.perf_counter() - began:.0f} s so far"
    )
    for chosen in given.variants:
        if time.perf_counter() - began > given.budget:
            report["variants"][chosen.name] = {"error": "out of time"}
            continue
        try:
            result = run_variant(engine, model, chosen, given.limit, given.seconds)
        except Exception as error:  # out of memory, a kernel that does not compile, …
            result = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            if not isinstance(error, torch.OutOfMemoryError):
                traceback.print_exc()
        result["predicted_bytes"] = predicted_bytes(config, chosen)
        engine.drop_gradients()
        report["variants"][chosen.name] = result
        _say(f"{_line(chosen, result, before)}; {time.perf_counter() - began:.0f} s so far")
        for text in result.get("longest_kernels", []):
            _say(f"    {text}")
        _save(given.out, report)
    engine.drop_gradients()
    _free()
    after = square_rate(size, device, seconds)
    gemm = max(before, after)
    report |= {"gemm_flops": {"before": before, "after": after, "block_shapes": shapes}}
    ran = {n: v for n, v in report["variants"].items() if "error" not in v}
    for result in ran.values():
        result["mfu"] = result["flops"] / gemm
        result["mfu_of_block_shapes"] = result["flops"] / shapes
        if result["measured_bytes"]:
            result["memory_error"] = result["predicted_bytes"] / result["measured_bytes"] - 1
    report["best"] = max(ran, key=lambda name: ran[name]["mfu"]) if ran else None
    if ran and on_gpu() and not given.tiny:
        _say(_verdict(report["best"], ran[report["best"]], gemm))
    _save(given.out, report)
    print(json.dumps(report))
    return 0 if agree and ran else 1


def _line(chosen: Variant, result: dict[str, Any], gemm: float) -> str:
    gib = 2.0**30
    predicted = result["predicted_bytes"]
    memory = f"{predicted / gib:.1f} GiB predicted"
    if "error" in result:
        return f"{chosen.name}: {result['error']}; {memory}"
    measured = result["measured_bytes"]
    return (
        f"{chosen.name}: {result['tokens_per_second']:.0f} tokens/s, MFU "
        f"{result['flops'] / gemm:.1%}, step {median(result['step_seconds']) * 1e3:.0f} ms, "
        f"update {result['update_seconds'] * 1e3:.0f}, warm-up {result['warm_up_seconds']:.0f} s "
        f"({result['compiled_while_timed']} graphs compiled after it); {memory}, "
        + (f"{measured / gib:.1f} used" if measured else "measured on a GPU only")
        + "".join(f"; {kind} {ms:.0f} ms" for kind, ms in result["kernel_milliseconds"].items())
    )


def _verdict(name: str, result: dict[str, Any], gemm: float) -> str:
    return (
        f"best: {name}, {result['tokens_per_second']:.0f} tokens/s, MFU {result['mfu']:.1%} of "
        f"{gemm / 1e12:.0f} TFLOP/s (target {MFU_TARGET:.0%}), memory predicted "
        f"{result['memory_error']:+.1%} off (target ±{MEMORY_TARGET:.0%})"
    )


def _save(folder: Path | None, report: dict[str, Any]) -> None:
    if folder is not None:
        (folder / "gpu_train.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
