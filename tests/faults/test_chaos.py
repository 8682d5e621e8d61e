"""A share of the episodes of ``make chaos``; docs/reliability.md has what else was tried."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.testing.chaos import stores
from tests.testing.chaos.episodes import KINDS, Driver, Episode, draw
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness import Harness
from tests.testing.chaos.harness_disk import DiskHarness, can_mount
from tests.testing.chaos.harness_s3 import S3Harness
from tests.testing.chaos.s3 import MOTO, moto_server, serving
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import RECORD

pytestmark = pytest.mark.long

NOTHING = Episode("nothing", 0, "bundles", [])


def share(store: str, count: int) -> list[Episode]:
    return [draw(seed, store=store) for seed in range(count)]


def name(episode: Episode) -> str:
    return episode.name


Kind = TypeVar("Kind", bound=Harness)


def beside(harness: Harness, kind: type[Kind]) -> Kind:
    """A harness of another kind in the same folder, with the same undisturbed runs."""
    other = kind(harness._folder, harness._forks)
    other._straight = harness._straight
    return other


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Harness:
    return Harness(tmp_path_factory.mktemp("local"), forks)


@pytest.mark.parametrize("episode", share("local", len(KINDS["local"])), ids=name)
def test_a_study_on_a_disk_survives(harness: Harness, episode: Episode) -> None:
    assert harness.run(episode) == []


@pytest.mark.skipif(not can_mount(), reason="mounting a tmpfs takes root")
@pytest.mark.parametrize("episode", share("disk", len(KINDS["disk"])), ids=name)
def test_a_study_on_a_disk_that_refuses_survives(harness: Harness, episode: Episode) -> None:
    assert beside(harness, DiskHarness).run(episode) == []


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[S3Harness]:
    if moto_server() is None:
        pytest.skip(f"there is no moto_server, see {MOTO}")
    with serving() as port:
        yield S3Harness(tmp_path_factory.mktemp("s3"), forks, port)


@pytest.mark.slow  # an episode takes minutes
@pytest.mark.parametrize("episode", share("s3", len(KINDS["s3"])), ids=name)
def test_a_study_on_s3_survives(s3: S3Harness, episode: Episode) -> None:
    assert s3.run(episode) == []


def test_every_named_point_of_a_study_is_drawn(harness: Harness) -> None:
    """A point is between two changes of the disk: commits, claims, checkpoints and tables."""
    points = harness.straight("bundles").points
    drawn = {
        harness._point("bundles", ((n + 0.5) / len(points), 0.999)) for n in range(len(points))
    }
    assert {point and point[0] for point in drawn} == set(points)
    for expected in (
        "rename student/.tmp",
        "fsync student/.tmp/record.json",
        "rename results/.tmp/tiny.parquet",
        "open claims/KEY.0",
    ):
        assert expected in points
    assert {"rename checkpoints/KEY/.tmp/UPDATE.json"} <= set(harness.straight("models").points)


class Tampering(Harness):
    """Does something to the store where an episode would disturb a driver."""

    def tampered(self, change: str) -> list[str]:
        straight = self.straight("bundles")
        root = self._folder / change
        shutil.copytree(self._folder / "straight-bundles", root)
        store = Store.open(root)
        before = stores.finished_records(store)
        assert stores.faults(store, "tiny", straight.tables, before) == []
        assert list(stores.leftovers(store)) == []
        getattr(self, change)(root)
        found = stores.faults(store, "tiny", straight.tables, before)
        return [*found, *stores.leftovers(store)]

    @staticmethod
    def claim_is_left(root: Path) -> None:
        (root / "claims").mkdir(exist_ok=True)
        (root / "claims/0123.0").write_text("")

    @staticmethod
    def folder_is_left(root: Path) -> None:
        (root / "student/.tmp-x").mkdir()

    @staticmethod
    def step_is_there_twice(root: Path) -> None:
        folder = next((root / "weak").iterdir())
        shutil.copytree(folder, folder.with_name(f"other-{folder.name}"))

    @staticmethod
    def step_ran_again(root: Path) -> None:
        record = next((root / "student").iterdir()) / RECORD
        content = json.loads(record.read_text())
        content["provenance"]["started"] = "2000-01-01T00:00:00+00:00"
        record.write_text(json.dumps(content))

    @staticmethod
    def row_is_lost(root: Path) -> None:
        import pyarrow.parquet as pq

        table = root / "results/tiny.parquet"
        pq.write_table(pq.read_table(table)[:-1], table)


@pytest.mark.parametrize(
    "change",
    ["claim_is_left", "folder_is_left", "step_is_there_twice", "step_ran_again", "row_is_lost"],
)
def test_what_is_wrong_is_noticed(harness: Harness, change: str) -> None:
    assert len(beside(harness, Tampering).tampered(change)) == 1


def test_a_driver_that_ends_otherwise_is_noticed(harness: Harness) -> None:
    """Killed, where nobody was to kill it."""
    (found,) = harness._wrong(Driver(), NOTHING, -9, "")
    assert "ended with -9" in found
    (found,) = harness._wrong(Driver(), NOTHING, 0, "Traceback (most recent call last)")
    assert "Traceback" in found
