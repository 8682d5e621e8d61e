"""What the counts of a running study say at each event."""

import pytest

from w2s_ray.capacity.execution import Execution
from w2s_ray.plan.configs import Config
from w2s_ray.plan.graph import Cell
from w2s_ray.plan.step import Fusion, Kind, Step
from w2s_ray.running.events import to_all
from w2s_ray.running.run_state import RunState

WEAK, STUDENT = Kind("weak", 1, ""), Kind("student", 1, "")
ON_GPUS = Execution(workers=2, gpus_per_worker=1.0)


def study(cost: dict[str, float] | None = None) -> tuple[dict[str, Step], RunState, list[float]]:
    """A weak model, two students of it, their evaluations; a clock that the test sets."""
    todo = {"weak": Step(WEAK, "weak", "", Config(), {}, ON_GPUS)}
    for name in "ab":
        todo[name] = Step(STUDENT, name, "", Config(), {"labels": "weak"})
        todo[f"{name}e"] = Step(STUDENT, f"{name}e", "", Config(), {"model": name})
    cells = [Cell({}, {"student": name, "student_evaluate": f"{name}e"}) for name in "ab"]
    finished_before = Cell({}, {"student": "old", "student_evaluate": "olde"})
    now = [100.0]
    state = RunState(todo, 7, cost or {}, [*cells, finished_before], clock=lambda: now[0])
    return todo, state, now


def test_states_of_steps_and_cells_follow_the_events() -> None:
    todo, state, _ = study()
    assert state.counts().steps == {
        **{"done": 7, "failed": 0, "blocked": 0, "running": 0},
        "waiting": 5,
    }
    assert state.counts().cells == {"done": 1, "failed": 0, "running": 0, "waiting": 2}
    for event, key in (("started", "weak"), ("done", "weak"), ("started", "a"), ("started", "b")):
        state(event, todo[key], {})
    assert state.counts().cells == {"done": 1, "failed": 0, "running": 2, "waiting": 0}
    state("failed", todo["a"], {"error": "no"})
    state("done", todo["b"], {})
    state("started", todo["be"], {})
    state("done", todo["be"], {})
    assert state.counts().cells == {"done": 2, "failed": 1, "running": 0, "waiting": 0}
    assert state.counts().steps == {
        **{"done": 10, "failed": 1, "blocked": 1, "running": 0},
        "waiting": 0,
    }


def test_a_step_that_crashed_waits_again() -> None:
    todo, state, _ = study()
    state("started", todo["weak"], {})
    state("crashed", todo["weak"], {"error": "killed", "steps": 1})
    assert state.counts().steps["waiting"] == 5


def test_a_step_that_is_tried_again_runs_and_what_it_blocked_waits() -> None:
    todo, state, _ = study()
    state("started", todo["weak"], {})
    state("failed", todo["weak"], {"error": "no"})
    assert (state.running, state.waiting, len(state.blocked)) == (0, 0, 4)
    state("started", todo["weak"], {})
    assert (state.running, state.waiting, len(state.blocked)) == (1, 4, 0)
    assert not state.failed
    state("failed", todo["weak"], {"error": "no"})
    state("done", todo["weak"], {"seconds": 1.0})  # its start was not seen
    assert (state.done, state.waiting, len(state.blocked)) == (1, 4, 0)
    assert not state.failed


def test_gpu_hours_are_those_of_all_workers_and_grow_while_a_step_runs() -> None:
    todo, state, now = study()
    state("started", todo["weak"], {})
    now[0] += 1800
    assert state.counts().gpu_hours == pytest.approx(1.0)
    now[0] += 1800
    state("done", todo["weak"], {"seconds": 3600.0})
    assert state.counts().gpu_hours == pytest.approx(2.0)


def test_a_fused_step_counts_its_share_of_the_time() -> None:
    fused = Kind("student", 1, "", fusion=lambda step: Fusion("together"))
    steps = {name: Step(fused, name, "", Config(), {}, ON_GPUS) for name in "ab"}
    now = [0.0]
    state = RunState(steps, 0, {}, clock=lambda: now[0])
    for step in steps.values():
        state("started", step, {})
    now[0] = 3600.0
    assert state.counts().gpu_hours == 0.0
    for step in steps.values():
        state("done", step, {"seconds": 1800.0})
    assert state.counts().gpu_hours == pytest.approx(2.0)


def test_time_left_is_that_of_the_cost_left() -> None:
    todo, state, now = study({"weak": 10.0, "a": 20.0, "b": 20.0})
    state("started", todo["weak"], {})
    assert state.counts().seconds_left is None
    now[0] += 5
    state("progress", todo["weak"], {"step": 1, "steps": 2})
    assert state.counts().seconds_left == pytest.approx(45.0)
    now[0] += 5
    state("done", todo["weak"], {})
    assert state.counts().seconds_left == pytest.approx(40.0)
    state("started", todo["a"], {})
    state("failed", todo["a"], {"error": "no"})
    assert state.counts().seconds_left == pytest.approx(20.0)


def test_all_listeners_hear_each_event_in_order() -> None:
    heard: list[str] = []
    step = Step(WEAK, "weak", "", Config(), {})
    both = to_all(
        lambda event, step, numbers: heard.append(f"1 {event}"),
        lambda event, step, numbers: heard.append(f"2 {event}"),
    )
    both("done", step, {})
    assert heard == ["1 done", "2 done"]
