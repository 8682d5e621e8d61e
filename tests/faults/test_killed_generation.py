"""``kill -9`` while text is generated, and while it is judged, costs no more than a shard."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.testing.specs import REPOSITORY
from tests.testing.text_studies import text_spec
from w2s_ray.steps import generate, judge
from w2s_ray.store.parts import Parts
from w2s_ray.study import main

pytestmark = pytest.mark.long

GRID = {"pair": [["weak", "strong"]], "method": ["untrained"]}
ROWS = 12  # that are generated together: two prompts of pairs, six of an evaluation
SHARD = 3  # of a judge

# The command, in a process that is killed once so many shards of steps of a kind are kept.
KILLED = """
import os, signal, sys
from w2s_ray.steps import generate, judge
from w2s_ray.store.parts import Parts
from w2s_ray.study import main

spec, prefix, *numbers = sys.argv[1:]
most, generate.DECODED_ROWS, judge.SHARD = map(int, numbers)
keep, seen = Parts.keep, []

def kept(self, name, make):
    made = keep(self, name, make)
    seen.append(name) if name.startswith(prefix) else None
    if len(seen) == most:
        os.kill(os.getpid(), signal.SIGKILL)
    return made

Parts.keep = kept
main([spec, "--local", "--no-report"])
"""


def tables(folder: Path) -> tuple[list[object], list[object]]:
    """Results, without what says how they were made, and samples."""
    results = pq.read_table(folder / "store/results/tiny-text.parquet")
    of_run = [c for c in results.column_names if "second" in c or "memory" in c]
    samples = pq.read_table(folder / "store/samples/tiny-text.parquet")
    return results.drop_columns(of_run).to_pylist(), samples.to_pylist()


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "DECODED_ROWS", ROWS)
        patch.setattr(judge, "SHARD", SHARD)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert main([str(text_spec(folder, grid=GRID)), "--local", "--no-report"]) == 0
    return folder


@pytest.mark.parametrize("prefix", ["samples", "verdicts"])
def test_what_was_kept_before_a_kill_is_not_made_again(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    spec = text_spec(tmp_path, grid=GRID)
    arguments = [str(spec), prefix, "2", str(ROWS), str(SHARD)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    before = {path.name for path in (tmp_path / "store/parts").glob("*/*")}
    assert len(before) == 2 and all(name.startswith(prefix) for name in before)

    found: list[str] = []
    keep = Parts.keep

    def kept(self: Parts, name: str, make: object) -> object:
        calls: list[None] = []
        made = keep(self, name, lambda: calls.append(None) or make())  # type: ignore[operator]
        if not calls:
            found.append(f"{name}.npy")
        return made

    monkeypatch.setattr(Parts, "keep", kept)
    assert main([str(spec), "--local", "--no-report"]) == 0
    assert set(found) == before
    assert tables(tmp_path) == tables(straight)
    assert not list((tmp_path / "store/parts").glob("*/*"))
