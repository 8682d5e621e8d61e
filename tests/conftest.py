"""Shared by all tests: no hub, one thread, one profile of Hypothesis, markers that are kept, and a
study small enough to run in seconds."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("W2S_RAY_NO_REPORT", "1")  # a second for each of hundreds of runs
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15: workers would starve beside other tests

import pytest
import yaml
from hypothesis import HealthCheck, settings

from tests.testing.chaos.forks import Forks
from tests.testing.listed import is_witness, takes_its_time
from tests.testing.process_groups import ProcessGroups
from tests.testing.specs import tiny_spec

if TYPE_CHECKING:
    from w2s_ray.cluster.session import Session

gc.disable()  # until all tests are collected: what that makes, stays

# A shell's background job has SIGINT ignored, one under nohup SIGHUP; children would inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# A machine that is busy with something else must not fail a test; CI draws the same examples
# each time.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

# marker -> the fixtures that need it, and a variable whose value makes the libraries refuse to
# start, in this process and its children, during a test without the marker.
STARTERS = {
    "groups": ({"process_groups"}, "GLOO_SOCKET_IFNAME"),
    "ray": ({"ray_session"}, "RAY_ADDRESS"),
}


LONGEST = ("test_lost_node.py", "test_readme.py")  # minutes of waiting for Ray


@pytest.fixture
def write_spec(tmp_path: Path):
    """Writes a spec (the tiny one, changed) and returns its path."""

    def write(name: str = "study.yaml", **changes: object) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(tiny_spec(**changes), sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tiny study, finished in one process; to be copied, not to be changed."""
    from w2s_ray.study import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.yaml").write_text(yaml.safe_dump(tiny_spec(), sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return folder / "store"


@pytest.fixture
def finished(finished_store: Path, write_spec: Callable[..., Path], tmp_path: Path) -> Path:
    """The spec of the tiny study, beside a finished store of its own in ``tmp_path``."""
    shutil.copytree(finished_store, tmp_path / "store")
    return write_spec()


@pytest.fixture(scope="session")
def process_groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessGroups]:
    """Ranks without Ray, one group for each world size, started when first used."""
    groups = ProcessGroups(tmp_path_factory.mktemp("groups"))
    yield groups
    groups.end()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Ray's processes look for programs first; it is empty."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def ray_session(programs: Path) -> Iterator["Session"]:
    """One real Ray, on which all tests run studies that do not start their own."""
    from w2s_ray.cluster.session import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs), prepend=os.pathsep)
        with connect(num_cpus=3) as session:
            yield session


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts the command without its imports, where it is not the start that is tested."""
    forks = Forks()
    yield forks
    forks.end()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses a test that starts Ray or a process group by a fixture, but has not the marker; marks
    the witnesses and what takes its time; puts files first that take long or mostly wait for Ray,
    so that others run beside them."""
    for item in items:
        if is_witness(item.nodeid):
            item.add_marker("witness")
        if takes_its_time(item.nodeid):
            item.add_marker("seconds")
    order = {path: place for place, path in enumerate(_longest_first(items))}
    items.sort(key=lambda item: order[item.path])
    unmarked = [
        f"{item.nodeid}: uses {fixture}, so it needs the marker {marker!r}"
        for item in items
        for marker, (fixtures, _) in STARTERS.items()
        for fixture in sorted(fixtures & set(getattr(item, "fixturenames", ())))
        if item.get_closest_marker(marker) is None
    ]
    if unmarked:
        raise pytest.UsageError("\n".join(unmarked))


def _longest_first(items: list[pytest.Item]) -> list[Path]:
    """``LONGEST``, then files with tests of Ray, of groups, with long ones, and the others."""
    weights = {"ray": 3, "groups": 2, "long": 1}
    heaviest = {item.path: 4 for item in items if item.path.name in LONGEST}
    for item in items:
        weight = max((weights.get(marker.name, 0) for marker in item.iter_markers()), default=0)
        heaviest[item.path] = max(heaviest.get(item.path, 0), weight)
    return sorted(heaviest, key=lambda path: -heaviest[path])


def pytest_collection_finish() -> None:
    """Garbage is not looked for among what stays: a full search takes 0.1 s in place of 0.6."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Lets neither Ray nor a group start in a test without their marker; a test of Ray may start
    groups of Ray's workers."""
    markers = {marker.name for marker in item.iter_markers()}
    refused = {"groups", "ray"} - markers if "ray" not in markers else set()
    with pytest.MonkeyPatch.context() as patch:
        for marker in refused:
            patch.setenv(STARTERS[marker][1], f"refused: the test lacks the marker {marker!r}")
        return (yield)
