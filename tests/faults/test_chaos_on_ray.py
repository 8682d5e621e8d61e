"""Episodes on Ray; ``python -m tests.testing.chaos --stores ray`` runs more of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.chaos.episodes import Episode, draw
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness_ray import RayHarness, ray_harness

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHarness]:
    folder: Path = tmp_path_factory.mktemp("ray")
    forks = Forks()
    with ray_harness(folder, forks) as harness:
        yield harness
    forks.end()


@pytest.mark.parametrize(
    "episode", [draw(0, store="ray"), draw(1, store="ray")], ids=lambda episode: episode.name
)
def test_a_study_on_ray_survives(harness: RayHarness, episode: Episode) -> None:
    assert harness.run(episode) == []
