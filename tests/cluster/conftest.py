"""One real Ray for all tests of this folder."""

from collections.abc import Iterator

import pytest

from w2s_ray.cluster.session import Session, connect


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Session]:
    with connect(num_cpus=3) as session:
        yield session
