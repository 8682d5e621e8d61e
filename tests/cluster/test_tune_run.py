import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from w2s_ray.cluster.session import Session
from w2s_ray.cluster.tune_run import run
from w2s_ray.errors import InputError
from w2s_ray.plan.graph import Step
from w2s_ray.store.artifacts import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("ray_session")


def steps(folder: Path, inputs: Mapping[str, str], **execution: Any) -> dict[str, Step]:
    """Steps "a", "b", … from their parents' names, e.g. {"a": "", "b": "a"}."""
    return {
        name: Step(
            kind="student",
            key=f"{name}0",
            slug=f"step-{name}",
            version=1,
            config={"log": str(folder / "log.jsonl")},
            inputs={f"from-{parent}": f"{parent}0" for parent in parents},
            execution=execution,
        )
        for name, parents in inputs.items()
    }


def by_key(made: Mapping[str, Step]) -> dict[str, Step]:
    return {step.key: step for step in made.values()}


def tell(step: Step, event: str) -> None:
    line = json.dumps({"key": step.key, "event": event, "pid": os.getpid(), "time": time.time()})
    with open(step.config["log"], "a") as log:
        log.write(line + "\n")


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def execute(step: Step, store: Store, context: Any) -> dict[str, Any]:
    """A step that needs its parents' artifacts and commits its own."""
    tell(step, "start")
    for parent in step.inputs.values():
        store.artifact(parent)
    if step.key in ("bad0", "dies0"):
        if step.key == "dies0" and sum(line["key"] == "dies0" for line in told_at(step)) < 3:
            os._exit(1)
        if step.key == "bad0":
            raise ValueError("three is\nnot four")
    with store.claim(step.key) as held, store.draft(step, {}) as draft:
        assert held
        draft.metrics["value"] = 1
    tell(step, "end")
    return {"value": 1}


def told_at(step: Step) -> list[dict[str, Any]]:
    return told(Path(step.config["log"]).parent)


def test_diamond(tmp_path: Path) -> None:
    graph = {"a": "", "b": "a", "c": "a", "d": "bc", "e": ""}
    todo = by_key(steps(tmp_path, graph))
    events: list[tuple[str, str]] = []
    started = time.monotonic()
    schedule = run(
        todo,
        str(tmp_path / "store"),
        study="diamond",
        on_event=lambda event, step, numbers: (print(event, step.key, numbers), events.append((event, step.key))),
        execute=execute,
    )
    print("took", time.monotonic() - started)
    assert schedule.done == set(todo)
    assert Store.open(tmp_path / "store").finished().keys() == todo.keys()
    log = told(tmp_path)
    assert Counter(line["key"] for line in log if line["event"] == "start") == dict.fromkeys(todo, 1)
    order = [(line["key"], line["event"]) for line in log]
    for step in todo.values():
        for parent in step.inputs.values():
            assert order.index((parent, "end")) < order.index((step.key, "start"))
    assert Counter(event for event, _ in events) == {"started": 5, "done": 5}
    assert not (tmp_path / "store/.ray/diamond").exists()
