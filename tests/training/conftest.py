"""One set of process groups for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.testing.process_groups import ProcessGroups


@pytest.fixture(scope="session")
def process_groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessGroups]:
    groups = ProcessGroups(tmp_path_factory.mktemp("groups"))
    yield groups
    groups.end()
