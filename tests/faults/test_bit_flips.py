"""Single bits of a finished store flip: each is noticed, and the study ends as if none had.

Flips are drawn from a seed over all files of all artifacts, each artifact with the same chance.
"""

import random
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from tests.testing.specs import tiny_spec
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.names import MEMBERS, RECORD, key_of
from w2s_ray.store.upkeep.verify import verify
from w2s_ray.study import main

# Columns of results that say how a step was run, not what came out.
OF_RUN = ("seconds", "tokens_per_second", "peak_memory_bytes")
LOSSES = ["forward_kl", "reverse_kl", "jeffreys", "pearson_chi2"]  # five noises each: a bundle
TABLES = ("results", "predictions", "train_predictions")


class Flip(NamedTuple):
    """A bit of a file of the artifact at ``path``."""

    path: str
    name: str
    bit: int

    def apply(self, root: Path) -> None:
        file = root / self.path / self.name
        content = bytearray(file.read_bytes())
        content[self.bit // 8] ^= 1 << self.bit % 8
        file.write_bytes(content)


class Finished(NamedTuple):
    """A spec, its finished store, and the parents of each step."""

    spec: Path
    root: Path
    parents: dict[str, set[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    spec = folder / "study.yaml"
    spec.write_text(yaml.safe_dump(tiny_spec()))
    assert main([str(spec), "--local", "--no-report", "--store", str(folder / "store")]) == 0
    parents = {step.key: set(step.inputs.values()) for step in build(load(spec))}
    return Finished(spec, folder / "store", parents)


def flips(root: Path, seed: int) -> Iterator[Flip]:
    """Random flips, endlessly."""
    draw = random.Random(seed)
    artifacts = sorted(path.parent for path in root.glob(f"*/*/{RECORD}"))
    while True:
        folder = draw.choice(artifacts)
        file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
        bit = draw.randrange(8 * file.stat().st_size)
        yield Flip(folder.relative_to(root).as_posix(), file.name, bit)


def is_noticed(store: Store, flip: Flip) -> bool:
    key = key_of(flip.path)
    if flip.name == RECORD:
        checked = store.checked([key])
        return not checked.finished and [e.path for e in checked.damaged] == [flip.path]
    with pytest.raises(StoreError, match=f"{flip.name} has the recorded size and another content"):
        list(store.contents([key], flip.name))
    with pytest.raises(StoreError, match=f"{flip.path} is damaged: {flip.name} has"):
        store.artifact(key).file(flip.name)
    return True


@pytest.mark.parametrize(
    "count", [pytest.param(500, id="500"), pytest.param(20_000, marks=pytest.mark.slow)]
)
def test_every_flip_is_noticed_where_it_is_read(finished: Finished, count: int) -> None:
    store = Store.open(finished.root)
    for flip, _ in zip(flips(finished.root, seed=count), range(count), strict=False):
        flip.apply(finished.root)
        assert is_noticed(store, flip), flip
        flip.apply(finished.root)
    assert store.checked(finished.parents) == (set(finished.parents), [])


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store whose students are bundles."""
    folder = tmp_path_factory.mktemp("bundled")
    spec = folder / "study.yaml"
    content = tiny_spec(grid__noise_ratio=[0.0, 0.1, 0.2, 0.3, 0.4], grid__loss=LOSSES)
    spec.write_text(yaml.safe_dump(content))
    assert main([str(spec), "--local", "--no-report", "--store", str(folder / "store")]) == 0
    return folder / "store"


def test_every_flip_in_a_bundle_is_found_by_verify(bundled: Path) -> None:
    """Of all its files, those that members have for themselves among them."""
    files = sorted(p for p in bundled.glob("*/@*/**/*") if p.is_file())
    assert {file.name for file in files} >= {RECORD, MEMBERS, "test.parquet"}
    draw = random.Random(0)
    for _ in range(100):
        file = draw.choice(files)
        path = "/".join(file.relative_to(bundled).parts[:2])
        bit = draw.randrange(8 * file.stat().st_size)
        flip = Flip(path, file.relative_to(bundled / path).as_posix(), bit)
        flip.apply(bundled)
        (damage,) = verify(Store.open(bundled), Console(file=StringIO())).damaged
        assert damage.error is not None and damage.error.path == path, flip
        flip.apply(bundled)


def table(root: Path, name: str) -> pa.Table:
    written = pq.read_table(root / name)
    return written.drop_columns([c for c in OF_RUN if c in written.column_names])


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 64))]
)
def test_a_study_makes_what_is_damaged_again_and_nothing_else(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """What reads the damaged files is removed, so that it runs again and reads them."""
    root = shutil.copytree(finished.root, tmp_path / "store")
    drawn = {flip.path: flip for flip, _ in zip(flips(root, seed), range(10), strict=False)}
    damaged = {key_of(path) for path in drawn}
    removed = {key for key, parents in finished.parents.items() if parents & damaged} - damaged
    before = Store.open(root).records(finished.parents)
    folders = Store.open(root).finished()
    for key in removed:
        shutil.rmtree(root / folders[key])
    for name in TABLES:
        shutil.rmtree(root / name)
    for flip in drawn.values():
        flip.apply(root)

    assert main([str(finished.spec), "--local", "--no-report", "--store", str(root)]) == 0
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert "failed" not in output.out
    for name in TABLES:
        assert table(root, name).equals(table(finished.root, name)), name
    aside = {path.name.split("-")[-2]: path for path in root.glob("damaged/*/*")}
    for path, flip in drawn.items():
        if key_of(path) in aside:
            assert output.out.count(f"{path} is damaged: {flip.name}") == 1
            altered = (aside[key_of(path)] / flip.name).read_bytes()
            assert altered != (finished.root / path / flip.name).read_bytes()
        else:  # nobody has read it
            assert (root / path / RECORD).read_bytes() == (
                finished.root / path / RECORD
            ).read_bytes()
    after = Store.open(root).records(finished.parents)
    assert before.keys() == after.keys()
    again = {key for key, record in after.items() if record != before[key]}
    assert again == removed | aside.keys()
