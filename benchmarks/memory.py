"""Predicted against measured peak memory of training processes on a CPU.

    python -m benchmarks.memory             # all points, some minutes
    python -m benchmarks.memory llama-bf16  # points whose name starts with this
    python -m benchmarks.memory --json      # one JSON object per point

Every point is a (model, precision, engine, stage, world size) with random weights, so nothing is
downloaded. A process first trains the same model, which loads all code and compiles the kernels of
its shapes (on some CPUs 15 MB that depend on the instructions they have, not on the model); then it
notes its resident memory, builds the model again and trains two steps of two micro-batches. The
figure is the peak of resident memory above that; of two ranks, the larger.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w2s_ray.capacity.memory import Memory, training_bytes
from w2s_ray.catalog.shapes import Shape, shape_of

ROOT = Path(__file__).resolve().parents[1]
STEPS, MICRO_BATCHES = 2, 2
BUCKET = 4_000_000  # elements of a communication buffer, in proportion to these small models
LLAMA = {
    "model_type": "llama",
    "vocab_size": 16_000,
    "hidden_size": 512,
    "intermediate_size": 1_408,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1_024,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 16_000,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "max_position_embeddings": 1_024,
}
SMALL = {**LLAMA, "vocab_size": 8_000, "hidden_size": 384, "num_hidden_layers": 6}
SMALL |= {"intermediate_size": 1_024, "num_attention_heads": 6}
MODELS = {"llama": LLAMA, "gpt2": GPT2, "small": SMALL}  # "small" is for a test


@dataclass(frozen=True)
class Point:
    """A configuration to measure.

    Attributes:
        model: a name in ``MODELS``.
        precision: ``bf16`` or ``fp32``.
        stage: of DeepSpeed; None for the torch engine.
        world: number of processes.
        tokens: per micro-batch.
        row: tokens per row, a third of them in the prompt.
        offload: as in a spec.
        checkpointing: whether blocks are recomputed in the backward pass.
    """

    model: str
    precision: str
    stage: int | None
    world: int
    tokens: int = 384
    row: int = 192
    offload: str = "none"
    checkpointing: bool = False

    @property
    def name(self) -> str:
        """A unique name, such as ``llama-bf16-zero2-world1``."""
        engine = "torch" if self.stage is None else f"zero{self.stage}"
        extra = "" if self.offload == "none" else f"-offload_{self.offload}"
        extra += "-recomputed" if self.checkpointing else ""
        return f"{self.model}-{self.precision}-{engine}-world{self.world}{extra}"

    @property
    def shape(self) -> Shape:
        """The shape of the model."""
        return shape_of(MODELS[self.model])

    def predicted(self) -> Memory:
        """The planner's prediction."""
        return training_bytes(
            self.shape,
            precision=self.precision,
            stage=self.stage or 0,
            world=self.world,
            tokens=self.tokens,
            engine="torch" if self.stage is None else "deepspeed",
            offload=self.offload,  # type: ignore[arg-type]
            checkpointing=self.checkpointing,
            micro_batches=MICRO_BATCHES,
            row_tokens=self.row,
            bucket=BUCKET,
            device="cpu",
        )


POINTS = [
    *(Point(m, p, None, 1) for m in ("llama", "gpt2") for p in ("bf16", "fp32")),
    *(Point(m, "bf16", s, w) for m in ("llama", "gpt2") for s in (1, 2, 3) for w in (1, 2)),
    *(Point("llama", "fp32", s, w) for s in (0, 1, 2, 3) for w in (1, 2)),
    Point("llama", "bf16", None, 1, tokens=1_152, checkpointing=True),
    *(Point("small", "bf16", s, 1) for s in (None, 2, 3)),
]


def measured(points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """Run points with the same world size one after another in the same processes.

    Yields:
        For each point, from the rank with the larger peak: ``peak``, and ``moments`` with the level
        after each part of the work, in bytes above the level before it.
    """
    world = points[0].world
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        given = [json.dumps(asdict(point)) for point in points]
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.memory", "--rank", folder, *given],
                cwd=ROOT,
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                    "DS_ACCELERATOR": "cpu",
                    # Freed memory is returned at once, so that only memory in use is measured.
                    "MALLOC_MMAP_THRESHOLD_": "65536",
                },
            )
            for rank in range(world)
        ]
        for point in points:
            files = [Path(folder) / f"{point.name}.{rank}.json" for rank in range(world)]
            while not all(file.exists() for file in files):
                if any(process.poll() not in (None, 0) for process in ranks):
                    raise RuntimeError(f"{point.name}: a process died")
                time.sleep(0.2)
            yield max(map(_read, files), key=lambda result: int(result["peak"]))
        for process in ranks:
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _read(file: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def work(points: Sequence[Point], folder: Path) -> None:
    """Train ``points`` as one rank and write a file for each to ``folder``."""
    import torch

    torch.set_num_threads(1)
    for point in points:
        _train(point, MODELS[point.model], Moments())
        gc.collect()
        moments = Moments()
        Path("/proc/self/clear_refs").write_text("5")
        _train(point, MODELS[point.model], moments)
        result = {"peak": _status("VmHWM") - moments.before, "moments": moments.levels}
        gc.collect()
        moments.note("closed")
        file = folder / f"{point.name}.{os.environ['RANK']}.json"
        file.with_suffix(".part").write_text(json.dumps(result))
        file.with_suffix(".part").replace(file)


class Moments:
    """Levels of resident memory during the work.

    Attributes:
        before: bytes at the start.
        levels: bytes above ``before`` by name of the moment.
    """

    def __init__(self) -> None:
        self.before = _status("VmRSS")
        self.levels: dict[str, int] = {}

    def note(self, name: str) -> None:
        """Record the present level."""
        self.levels[name] = _status("VmRSS") - self.before


def _train(point: Point, config: dict[str, Any], moments: Moments) -> None:
    """Train a model with random weights on random rows for ``STEPS`` steps."""
    import torch
    from transformers import MODEL_MAPPING, AutoConfig

    from w2s_ray.models.packed_attention import use_if_exact
    from w2s_ray.models.scorer import Scorer
    from w2s_ray.models.trainable import set_trainable
    from w2s_ray.spec.schema import Lora
    from w2s_ray.training.engine import Adam, TorchEngine

    fields = {name: value for name, value in config.items() if name != "model_type"}
    settings = AutoConfig.for_model(config["model_type"], **fields)
    for name in ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout"):
        if hasattr(settings, name):
            setattr(settings, name, 0.0)
    dtype = torch.bfloat16 if point.precision == "bf16" else torch.float32
    standard, _ = torch.get_default_dtype(), torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    backbone = MODEL_MAPPING[type(settings)](settings)  # type: ignore[operator]
    torch.set_default_dtype(standard)
    assert use_if_exact(backbone)
    if point.checkpointing:
        backbone.activation_checkpointing_enable()
    scorer = Scorer(backbone.train(), settings.hidden_size, 2, 2)
    moments.note("model")
    parameters = set_trainable(scorer, "full", Lora(), 0)
    if point.stage is None:
        engine: Any = TorchEngine(scorer, parameters, Adam(clip_norm=1.0))
    else:
        from w2s_ray.training import zero_config
        from w2s_ray.training.deepspeed_engine import DeepSpeedEngine

        zero_config.BUCKET_ELEMENTS = BUCKET
        zero = zero_config.Zero(stage=point.stage, offload=point.offload)
        engine = DeepSpeedEngine(scorer, parameters, Adam(clip_norm=1.0), zero=zero)
    moments.note("engine")
    count, part = point.tokens // point.row, point.row // 3
    segments = torch.full((count, 3), part)
    random = torch.Generator().manual_seed(int(os.environ["RANK"]))
    for step in range(STEPS):
        for number in range(MICRO_BATCHES):
            ids = torch.randint(config["vocab_size"], (count * point.row,), generator=random)
            logits = engine.logits({"input_ids": ids, "segments": segments})
            moments.note(f"forward {step} {number}")
            engine.backward(logits.sum() / count, last=number == MICRO_BATCHES - 1)
            moments.note(f"backward {step} {number}")
        engine.step(1e-4)
        moments.note(f"step {step}")
    if point.stage is not None:
        engine.close()


def _status(field: str) -> int:
    """A field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per point; returns 1 if a prediction is off by more than 10 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="prefixes of the names of points")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    points = [p for p in POINTS if not options.names or p.name.startswith(tuple(options.names))]
    if options.rank:
        work([Point(**json.loads(name)) for name in options.names], options.rank)
        sys.stdout.flush()
        os._exit(0)
    worst = 0.0
    groups = [[p for p in points if p.world == world] for world in (1, 2)]
    pairs = (pair for group in groups if group for pair in zip(group, measured(group), strict=True))
    for point, result in pairs:
        predicted = point.predicted()
        error = predicted.total / result["peak"] - 1
        worst = max(worst, abs(error))
        if options.json:
            entry = {"name": point.name, "predicted": asdict(predicted), "measured": result}
            print(json.dumps({**entry, "error": error}), flush=True)
        else:
            print(
                f"{point.name:34} predicted {predicted.total / 2**20:6.0f} MiB, "
                f"measured {result['peak'] / 2**20:6.0f} MiB, {error:+6.1%}",
                flush=True,
            )
    return int(worst > 0.1)


if __name__ == "__main__":
    sys.exit(main())
