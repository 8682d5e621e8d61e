"""A store with the steps of a small study, made of real artifacts."""

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from pyarrow import fs, parquet

from w2s_ray.plan.graph import Step
from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import digest

ROLES = (
    "prepare",
    "weak",
    "weak_evaluate",
    "label",
    "ceiling",
    "ceiling_evaluate",
    "student",
    "student_evaluate",
)
# Scores are drawn from the key, so equal steps have equal scores wherever they are made.
EVALUATED = {"accuracy": 0.7, "auroc": 0.8, "cross_entropy": 0.5, "calibration_error": 0.1}


class Study:
    """Cells over losses and seeds; all cells of a seed share weak model and ceiling."""

    def __init__(self, store: Store, name: str = "hh", seeds: Iterable[int] = (0, 1)) -> None:
        self.store, self.name = store, name
        self.cells = [self.cell(loss, s) for loss in ("reverse_kl", "forward_kl") for s in seeds]

    def cell(self, loss: str, seed: int) -> dict[str, Any]:
        values = {
            "study": self.name,
            "data": "pairs",
            "weak": "small",
            "strong": "large",
            "loss": loss,
            "loss_parameters": {},
            "confidence_weight": 0.0,
            "confidence_warmup": 0.2,
            "confidence_form": "target",
            "label_clip": 1e-3,
            "noise_ratio": 0.0,
            "noise_strength": -1.0,
            "trainable": "full",
            "learning_rate": 1e-5,
            "epochs": 1,
            "batch_size": 16,
            "seed": seed,
        }
        own = {role: loss if role.startswith("student") else "shared" for role in ROLES}
        return {"cell": values, "keys": {role: digest([role, own[role], seed]) for role in ROLES}}

    def step(self, role: str, cell: dict[str, Any]) -> Step:
        kind = "evaluate" if role.endswith("_evaluate") else role
        return Step(kind, cell["keys"][role], f"pairs-{role}", 1, {}, {})

    def predicted(self, key: str, rows: int = 4, classes: int = 2) -> pa.Table:
        """Probabilities that depend on the key alone."""
        first = [int(digest([key, row])[:4], 16) / 65536 for row in range(rows)]
        return pa.table(
            {
                "row_id": [f"{row:016x}" for row in range(rows)],
                "label": pa.array([row % 2 for row in range(rows)], pa.int64()),
                "probs": pa.array(
                    [[p, *[(1 - p) / (classes - 1)] * (classes - 1)] for p in first],
                    pa.list_(pa.float32()),
                ),
            }
        )

    def finish(self, role: str, cell: dict[str, Any], **metrics: Any) -> None:
        step = self.step(role, cell)
        if self.store.has(step.key):
            return
        with self.store.draft(step, {"workers": 1}) as draft:
            if role in ("weak", "student", "ceiling"):
                parquet.write_table(self.predicted(step.key), draft.folder / "test.parquet")
                draft.metrics.update(seconds=2.0, tokens=100, steps=3, final_loss=0.25)
            if step.kind == "evaluate":
                draft.metrics.update(EVALUATED, rows=4)
            draft.metrics.update(metrics)

    def finish_all(self, cells: Iterable[dict[str, Any]] | None = None) -> None:
        for cell in self.cells if cells is None else cells:
            for role in ROLES:
                self.finish(role, cell)


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """Objects in memory; readers of one object share no position, as elsewhere they do not."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        return BytesIO(file.getvalue()) if mode == "rb" else file


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    """A store without renames and exclusive creation: objects in memory."""
    memory = fs.PyFileSystem(fs.FSSpecHandler(Bucket()))
    return Store(memory, f"bucket-{uuid4().hex}/store", cache=tmp_path / "cache")


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest) -> Store:
    place: Store = request.getfixturevalue(request.param)
    return place


@pytest.fixture
def study() -> type[Study]:
    return Study


@pytest.fixture
def make_step() -> Callable[..., Step]:
    def make(key: str = "a1", kind: str = "student", slug: str = "hh-kl", **config: Any) -> Step:
        return Step(kind, key, slug, 1, config, {"weak": "b2"}, {"workers": 2})

    return make
