"""A session of its own process: what it prints, what it leaves behind, what it refuses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from w2s_ray.cluster.session import Session
from w2s_ray.store.artifacts import Store

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]

SLOW_STEP = """
import sys, time
from ray import cloudpickle
from w2s_ray.cluster.session import connect
from w2s_ray.cluster.tune_run import run
from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Kind, Step

cloudpickle.register_pickle_by_value(sys.modules["__main__"])

def execute(step, store, context):
    with store.claim(step.key), store.draft(step.identity, {}):
        context.progress({"step": 1, "steps": 2})
        while True:
            time.sleep(0.1)

with connect(num_cpus=1) as session:
    print(session.dashboard_url, file=sys.stderr, flush=True)
    print(session.note, file=sys.stderr, flush=True)
    todo = {"a": Step(Kind("student", 1, ""), "a", "slow", Config(), {})}
    try:
        run(
            todo,
            sys.argv[1],
            on_event=lambda event, step, numbers: print(event, file=sys.stderr, flush=True),
            execute=execute,
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
"""

JOINED = """
import ray
from w2s_ray.cluster.session import connect
with connect() as session:
    print(session.dashboard_url, session.note, ray.cluster_resources()["CPU"])
"""

REFUSED = """
import os
from w2s_ray.cluster.session import connect
from w2s_ray.errors import InputError
os.environ["RAY_TMPDIR"] = "/dev/null"
for address in ("127.0.0.1:9", "ray://127.0.0.1:9", ""):
    os.environ["RAY_ADDRESS"] = address
    try:
        with connect():
            pass
    except InputError as error:
        print(type(error).__name__, error)
"""


REFUSALS = (
    "InputError RAY_ADDRESS: no Ray cluster could be joined at '127.0.0.1:9'",
    "InputError RAY_ADDRESS: 'ray://127.0.0.1:9' is a Ray Client address",
    "SystemFault Ray did not start on this machine: NotADirectoryError",
)


def python(code: str, *arguments: str, address: str | None = None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if address is not None:
        environment["RAY_ADDRESS"] = address
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_beside_another_ray_says_so_and_an_interrupted_one_leaves_nothing_behind(
    ray_session: Session, tmp_path: Path
) -> None:
    other = ray.get_runtime_context().gcs_address
    process = python(SLOW_STEP, str(tmp_path / "store"))
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        assert next(lines).startswith("http://127.0.0.1:")
        note = next(lines)
        assert note.startswith("note: another Ray runs on this machine (") and other in note
        assert any(line == "progress\n" for line in lines)  # the step holds its claim by now
        store = Store.open(tmp_path / "store")
        assert store.listing("claims") != []
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 3
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes too
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert output == ""
    assert errors.endswith("interrupted\n")
    assert store.listing("claims") == []
    assert store.finished() == {}
    assert store.failures() == {}  # an interruption is no failure
    deadline = time.monotonic() + 100
    while any(child.is_running() for child in family) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [child for child in family if child.is_running()] == []


def test_what_cannot_be_joined_or_started_is_one_line() -> None:
    output, errors = python(REFUSED).communicate(timeout=120)  # Ray would retry for longer
    lines = output.splitlines()
    for line, expected in zip(lines, REFUSALS, strict=True):
        assert line.startswith(expected), errors


def test_a_cluster_that_was_found_is_left_running(ray_session: Session) -> None:
    address = ray.get_runtime_context().gcs_address
    output, errors = python(JOINED, address=address).communicate(timeout=60)
    assert output == f"{ray_session.dashboard_url} None 3.0\n", errors
    assert ray.get(ray.put("still here")) == "still here"
    assert [node["Alive"] for node in ray.nodes()] == [True]
