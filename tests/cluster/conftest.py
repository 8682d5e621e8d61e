"""One real Ray for all tests of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from w2s_ray.cluster.session import Session, connect


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Ray's processes look for programs first; it is empty."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def ray_session(programs: Path) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs), prepend=os.pathsep)
        with connect(num_cpus=3) as session:
            yield session
