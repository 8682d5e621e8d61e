"""Stores over every backend, their raw files, and a small study made of real artifacts."""

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import (  # type: ignore[import-untyped]
    MemoryFile,
    MemoryFileSystem,
)
from pyarrow import fs, parquet

from w2s_ray.half_logits import as_lists, of_probabilities
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import Backend
from w2s_ray.store.canonical import digest
from w2s_ray.store.identity import Identity
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.object_store import ObjectStoreBackend

ROLES = (
    "prepare",
    "weak",
    "weak_evaluate",
    "label",
    "ceiling",
    "ceiling_evaluate",
    "ceiling_against_weak",
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
            "chain": "",
            "combine": "mean",
            "loss": loss,
            "loss_parameters": {},
            "confidence_weight": 0.0,
            "confidence_warmup": 0.2,
            "confidence_form": "target",
            "label_clip": 1e-3,
            "noise_ratio": 0.0,
            "noise_strength": -1.0,
            "label_temperature": 1.0,
            "label_filter": "none",
            "label_keep": 1.0,
            "relabel": "none",
            "example_weight": "none",
            "train_rows": None,
            "readout_block": None,
            "weight_decay": 0.0,
            "anchor": 0.0,
            "weak_seed": seed,
            "trainable": "full",
            "learning_rate": 1e-5,
            "epochs": 1,
            "batch_size": 16,
            "seed": seed,
            "control": "",
        }
        own = {role: loss if role.startswith("student") else "shared" for role in ROLES}
        return {"cell": values, "keys": {role: digest([role, own[role], seed]) for role in ROLES}}

    def step(self, role: str, cell: dict[str, Any]) -> Identity:
        kind = "evaluate" if role.endswith(("_evaluate", "_against_weak")) else role
        return Identity(kind, cell["keys"][role], f"pairs-{role}", 1, {}, {})

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

    def trained(self, key: str, *, with_labels: bool) -> pa.Table:
        """Float16 logits of training rows; of a student without the first, which was left out."""
        table = self.predicted(key)
        probs = np.array(table["probs"].to_pylist())
        columns = {"row_id": table["row_id"], "logits": as_lists(of_probabilities(probs))}
        if with_labels:
            columns |= {"soft_label": table["probs"], "noisy": [True, False, True, False]}
        return pa.table(columns).slice(1 if with_labels else 0)

    def finish(self, role: str, cell: dict[str, Any], **metrics: Any) -> None:
        step = self.step(role, cell)
        if self.store.has(step.key):
            return
        with self.store.draft(step, {"workers": 1}) as draft:
            if role in ("weak", "student", "ceiling"):
                parquet.write_table(self.predicted(step.key), draft.folder / "test.parquet")
                draft.metrics.update(seconds=2.0, tokens=100, steps=3, final_loss=0.25)
            if step.kind == "prepare":
                prompts = pa.array(["one prompt", "one prompt", "another", ""])
                rows = self.predicted(step.key).append_column("prompt", prompts)
                parquet.write_table(rows, draft.folder / "test.parquet")
                parquet.write_table(rows, draft.folder / "weak.parquet")
            if step.kind == "label":
                labels = self.predicted(step.key).drop_columns("label")
                parquet.write_table(labels, draft.folder / "soft_labels.parquet")
            if role in ("student", "ceiling"):
                trained = self.trained(step.key, with_labels=role == "student")
                parquet.write_table(trained, draft.folder / "train.parquet")
            if step.kind == "evaluate":
                draft.metrics.update(EVALUATED, rows=4)
            if role.endswith("_evaluate"):
                model = self.predicted(cell["keys"][role.removesuffix("_evaluate")])
                tops = np.stack(model["probs"].to_numpy()).argmax(axis=1)
                draft.metrics["accuracy"] = float((tops == model["label"].to_numpy()).mean())
            draft.metrics.update(metrics)

    def finish_all(self, cells: Iterable[dict[str, Any]] | None = None) -> None:
        for cell in self.cells if cells is None else cells:
            for role in ROLES:
                self.finish(role, cell)


class Upload(BytesIO):
    """An object being written, which appears when it is closed."""

    def __init__(self, objects: "Objects", path: str) -> None:
        super().__init__()
        self.objects, self.path = objects, path

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            self.objects.store[self.path] = MemoryFile(self.objects, self.path, content)
        super().close()


class Objects(MemoryFileSystem):  # type: ignore[misc]
    """Objects in memory as S3 has them: an object appears whole, each reader has its own file.

    fsspec's own shows objects while they are written, and all readers share one position.
    """

    protocol = "objects"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            return Upload(self, self._strip_protocol(path))
        return BytesIO(super()._open(path, mode, **options).getvalue())


def objects_in_memory() -> fs.FileSystem:
    return fs.PyFileSystem(fs.FSSpecHandler(Objects()))


class Raw:
    """The files of a backend, behind its back; paths are relative to the root."""

    def __init__(self, backend: Backend) -> None:
        is_local = isinstance(backend, LocalBackend)
        self.filesystem = fs.LocalFileSystem() if is_local else backend.filesystem
        self.root = str(backend.root).rstrip("/")

    def files(self) -> list[str]:
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        skip = len(self.root.strip("/")) + 1
        return sorted(info.path.strip("/")[skip:] for info in infos if info.is_file)

    def read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.root}/{path}") as stream:
            return bytes(stream.read())

    def write(self, path: str, content: bytes) -> None:
        self.filesystem.create_dir(f"{self.root}/{path}".rpartition("/")[0])
        with self.filesystem.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(content)

    def delete(self, path: str) -> None:
        self.filesystem.delete_file(f"{self.root}/{path}")

    def delete_folder(self, path: str) -> None:
        self.filesystem.delete_dir(f"{self.root}/{path}")


def make_backend(kind: str, tmp_path: Path) -> Backend:
    if kind == "local":
        return LocalBackend(tmp_path / "store")
    cache = tmp_path / "cache"
    if kind == "objects":
        root = f"bucket-{uuid4().hex}/store"
        return ObjectStoreBackend(objects_in_memory(), root, cache=cache)
    files = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("file", auto_mkdir=True)))
    return ObjectStoreBackend(files, str(tmp_path / "bucket"), cache=cache)


@pytest.fixture(params=["local", "objects", "fsspec"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Every kind of backend: a folder, objects, and objects on a file system with folders."""
    return make_backend(request.param, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(make_backend("local", tmp_path))


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    """A store without renames and exclusive creation: objects in memory."""
    return Store(make_backend("objects", tmp_path))


@pytest.fixture(params=["local", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(make_backend(request.param, tmp_path))


@pytest.fixture
def raw() -> type[Raw]:
    return Raw


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[Store, str], Store]:
    """The same bucket, seen from another machine."""

    def other(store: Store, machine: str) -> Store:
        seen = store.backend
        assert isinstance(seen, ObjectStoreBackend)
        cache = tmp_path / machine
        return Store(ObjectStoreBackend(seen.filesystem, seen.root, cache=cache))

    return other


@pytest.fixture
def study() -> type[Study]:
    return Study


@pytest.fixture
def make_step() -> Callable[..., Identity]:
    def make(
        key: str = "a1", kind: str = "student", slug: str = "hh-kl", **config: Any
    ) -> Identity:
        return Identity(kind, key, slug, 1, config, {"weak": "b2"})

    return make
