"""Episodes on Ray; ``python -m tests.testing.chaos --stores ray`` runs more of them."""

from collections.abc import Iterator

import pytest

from tests.testing.chaos.episodes import Episode, draw
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness_ray import RayHarness, ray_harness

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def harness(
    ray_session: object, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayHarness]:
    with ray_harness(tmp_path_factory.mktemp("ray"), forks) as harness:
        yield harness


@pytest.mark.parametrize(
    "episode",
    [
        draw(1, store="ray"),  # actors are killed, as a driver is on a disk
        pytest.param(draw(0, store="ray"), marks=pytest.mark.slow),
    ],
    ids=lambda episode: episode.name,
)
def test_a_study_on_ray_survives(harness: RayHarness, episode: Episode) -> None:
    assert harness.run(episode) == []
