"""One run on a real Ray of a graph in which steps fail, die and recover; then what is refused."""

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.util.state import list_actors

from tests.testing.steps import a_step
from w2s_ray.cluster.tune_run import run
from w2s_ray.errors import InputError
from w2s_ray.plan.configs import Config
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Kind, Step
from w2s_ray.store.artifacts import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

# name -> parents; a diamond, and what goes wrong beside it
GRAPH = {
    "top": [],
    "left": ["top"],
    "right": ["top"],
    "bottom": ["left", "right"],
    "wrong": ["top"],
    "child": ["wrong", "left"],
    "grandchild": ["child"],
    "shaky": ["top"],  # its process dies once
    "heir": ["shaky"],
    "doomed": [],  # its process dies every time
    "orphan": ["doomed"],
    "slow": [],
    **{f"link{n}": [f"link{n - 1}"] if n else ["right"] for n in range(20)},
}
BLOCKED = {"child", "grandchild", "orphan"}
FAILED = {"wrong", "doomed"}


LOGGED = Kind("student", 1, "")


@dataclass(frozen=True)
class LogConfig(Config):
    log: str

    def as_json(self) -> dict[str, Any]:
        return {"log": self.log}


def graph(folder: Path) -> dict[str, Step]:
    return {
        name: Step(
            LOGGED,
            name,
            f"step-{name}",
            LogConfig(str(folder / "log.jsonl")),
            {f"from_{parent}": parent for parent in parents},
        )
        for name, parents in GRAPH.items()
    }


def execute(step: Step, store: Store, context: Any) -> dict[str, Any]:
    """A step that needs its parents' artifacts and commits its own; some go wrong."""
    note(step, "start")
    for parent in step.inputs.values():
        store.artifact(parent)
    if step.key == "wrong":
        raise ValueError("three is\nnot four")
    if step.key == "doomed":
        os._exit(1)
    if step.key == "slow":
        for number in range(1, 5):
            context.progress({"step": number, "steps": 4, "loss": 1 / number})
            time.sleep(0.5)
    with store.claim(step.key) as held, store.draft(step.identity, {}) as draft:
        assert held
        if step.key == "shaky" and starts(step) == 1:
            os._exit(1)  # and its claim stays behind
        draft.metrics["answer"] = 42
    note(step, "end")
    return {"answer": 42}


def note(step: Step, event: str) -> None:
    line = {"key": step.key, "event": event, "pid": os.getpid()}
    with open(step.config_as(LogConfig).log, "a") as log:
        log.write(json.dumps(line) + "\n")


def read(log: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def starts(step: Step) -> int:
    lines = read(step.config_as(LogConfig).log)
    return sum(line["key"] == step.key and line["event"] == "start" for line in lines)


@dataclass
class Outcome:
    """What is left of the run."""

    schedule: Schedule
    store: Store
    log: list[dict[str, Any]]
    events: list[tuple[str, str, dict[str, Any]]]
    output: str


@pytest.fixture(scope="module")
def outcome(ray_session: object, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("run")
    events: list[tuple[str, str, dict[str, Any]]] = []
    store = Store.open(folder / "store")
    output, saved = folder / "stdout", os.dup(1)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        try:
            schedule = run(
                graph(folder),
                f"file://{store.uri}?region=x",  # a query belongs to the URI, not to the path
                study="graph",
                on_event=lambda event, step, numbers: events.append((event, step.key, numbers)),
                execute=execute,
            )
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    return Outcome(schedule, store, read(folder / "log.jsonl"), events, output.read_text())


def test_failure_blocks_descendants_only(outcome: Outcome) -> None:
    good = set(GRAPH) - BLOCKED - FAILED
    assert outcome.schedule.done == good
    assert outcome.schedule.failed == FAILED
    assert set(outcome.schedule.blocked) == BLOCKED
    assert set(outcome.store.finished()) == good


def test_every_step_runs_once_after_its_inputs(outcome: Outcome) -> None:
    order = [(line["key"], line["event"]) for line in outcome.log]
    ran = Counter(key for key, event in order if event == "start")
    retried = {"shaky": 2, "doomed": 3}  # as their process died
    assert ran == {name: retried.get(name, 1) for name in GRAPH if name not in BLOCKED}
    for name, _ in order:
        for parent in GRAPH[name]:
            assert order.index((parent, "end")) < order.index((name, "start"))


def test_failures_are_told_and_recorded(outcome: Outcome) -> None:
    reported = {
        key: numbers["error"] for event, key, numbers in outcome.events if event == "failed"
    }
    assert reported.keys() == FAILED
    assert reported["wrong"] == "ValueError: three is not four"
    assert "died" in reported["doomed"]
    # The runner notes an error itself; of a process that died only the driver knows.
    assert outcome.store.failures()["doomed"]["error"] == reported["doomed"]


def test_events(outcome: Outcome) -> None:
    counts = Counter((event, key) for event, key, _ in outcome.events)
    for name in outcome.schedule.done:
        assert counts["done", name] == 1
        assert counts["started", name] == (2 if name == "shaky" else 1)
    crashes = {
        key: counts["crashed", key] for event, key, _ in outcome.events if event == "crashed"
    }
    assert crashes == {"shaky": 1, "doomed": 2}
    assert all(numbers == {"answer": 42} for event, _, numbers in outcome.events if event == "done")
    progress = [numbers for event, _, numbers in outcome.events if event == "progress"]
    assert progress
    assert [numbers["step"] for numbers in progress] == sorted(n["step"] for n in progress)


def test_no_more_at_a_time_than_there_are_cpus(outcome: Outcome) -> None:
    running: set[str] = set()
    most = 0
    for event, key, _ in outcome.events:
        if event == "started":
            running.add(key)
        elif event in ("done", "failed", "crashed"):
            running.remove(key)
        most = max(most, len(running))
    assert most <= 3


def test_processes_are_reused(outcome: Outcome) -> None:
    """A process is used up by a failure only, or for want of work."""
    assert len({line["pid"] for line in outcome.log}) < len(outcome.log) / 4


def test_silent_and_tidy(outcome: Outcome) -> None:
    assert outcome.output == ""
    assert list(Path(outcome.store.uri).glob(".ray/*")) == []
    assert outcome.store.listing("claims") == []


@pytest.mark.parametrize(
    "execution",
    [
        {"cpus_per_worker": 4},
        {"gpus_per_worker": 1},
        {"workers": 4, "cpus_per_worker": 1},
        {"workers": 2, "cpus_per_worker": 2},
    ],
)
def test_refuses_what_cannot_be_placed(tmp_path: Path, execution: dict[str, Any]) -> None:
    step = a_step("student", "a", "hh-x", **execution)
    with pytest.raises(InputError, match=r"student hh-x .* cluster has 3 CPU and 0 GPU"):
        run({"a": step}, str(tmp_path), execute=execute)
    assert list(tmp_path.iterdir()) == []


HELD = {"short": [], "brief": [], "held": [], **{f"last{n}": ["held"] for n in range(3)}}


def hold(step: Step, store: Store, context: Any) -> dict[str, Any]:
    """Commits; ``held`` keeps its process until its file is there.

    The two others end only when it runs: in a warm process of one of them, it could leave none
    that is idle.
    """
    note(step, "start")
    log = Path(step.config_as(LogConfig).log)
    while step.key == "held" and not log.with_name("go").exists():
        context.progress({"step": 1})
        time.sleep(0.1)
    while step.key in ("short", "brief") and "held" not in {line["key"] for line in read(log)}:
        time.sleep(0.1)
    with store.draft(step.identity, {}) as draft:
        draft.metrics["answer"] = 42
    return {"answer": 42}


def test_a_warm_idle_process_that_dies_takes_no_step_with_it(tmp_path: Path) -> None:
    """Tune gives the next step to the dead actor while it still calls the trial pending."""
    log, ended, killed = tmp_path / "log.jsonl", set(), []
    steps = {
        name: Step(LOGGED, name, name, LogConfig(str(log)), {parent: parent for parent in parents})
        for name, parents in HELD.items()
    }
    crashed = []

    def on_event(event: str, step: Step, numbers: dict[str, Any]) -> None:
        if event == "crashed":
            crashed.append(step.key)
        if event in ("done", "failed"):
            ended.add(step.key)
        if event == "progress" and not killed and ended == {"short", "brief"}:
            pids = {line["key"]: line["pid"] for line in read(log)}
            for idle in {pids["short"], pids["brief"]} - {pids["held"]}:
                with suppress(ProcessLookupError):  # Tune may have ended it for want of work
                    os.kill(idle, signal.SIGKILL)
                    killed.append(idle)
            (tmp_path / "go").touch()

    schedule = run(steps, str(tmp_path / "store"), execute=hold, on_event=on_event)
    assert killed
    assert schedule.done == set(HELD)
    assert not schedule.failed and not schedule.blocked
    assert crashed


def commit_or_die(step: Step, store: Store, context: Any) -> dict[str, Any]:
    if step.key == "score2":
        os._exit(1)
    if not store.has(step.key):
        with store.draft(step.identity, {}) as draft:
            draft.metrics["answer"] = 42
    return {"answer": 42}


def test_a_step_that_kills_its_process_fails_alone_in_its_group(tmp_path: Path) -> None:
    """Scores run as one group; what stands before the culprit and what after it is finished."""
    steps = {f"score{n}": a_step("evaluate", f"score{n}", "x") for n in range(5)}
    schedule = run(steps, str(tmp_path), execute=commit_or_die)
    assert schedule.failed == {"score2"}
    assert schedule.done == set(steps) - {"score2"} == set(Store.open(tmp_path).finished())
    assert "died" in Store.open(tmp_path).failures()["score2"]["error"]


def test_short_steps_take_no_process_that_is_still_starting(tmp_path: Path) -> None:
    """Three CPUs and many steps that take no time: three processes are started, and no more."""
    before = actors()
    steps = {name: a_step("student", name) for name in map(str, range(300))}
    assert len(run(steps, str(tmp_path), execute=nothing).done) == len(steps)
    assert len(actors() - before) == 3


def nothing(step: Step, store: Store, context: Any) -> dict[str, Any]:
    return {}


def actors() -> set[str]:
    """Ids of all actors for steps that this Ray, not another one beside it, has started."""
    address = ray.get_runtime_context().gcs_address
    known = list_actors(address, filters=[("class_name", "=", "StepActor")], limit=10_000)
    return {actor.actor_id for actor in known}
