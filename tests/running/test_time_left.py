"""The time left: the work that remains, at the speed at which work was done."""

import pytest

from tests.testing.steps import a_step
from w2s_ray.running.time_left import TimeLeft, Underway

COST = {"a": 1e9, "b": 3e9, "c": 6e9}


def steps():
    todo = {key: a_step("weak", key) for key in COST}
    return todo | {"e": a_step("evaluate", "e")}


def test_it_is_unknown_before_anything_was_measured():
    assert TimeLeft(steps(), COST).estimate([], 0.0) is None


def test_it_follows_from_operations_and_the_speed_of_finished_steps():
    todo = steps()
    left = TimeLeft(todo, COST)
    left.remove(todo["a"])
    left.finished(todo["a"], 2.0)  # 0.5e9 a second
    seconds, is_bound = left.estimate([], 0.0)
    assert seconds == 18.0 and not is_bound  # (3 + 6) / 0.5; a set of predictions takes no time
    left.remove(todo["b"])  # it is never run
    assert left.estimate([], 0.0).seconds == 12.0
    left.add(todo["b"])
    assert left.estimate([], 0.0).seconds == 18.0


def test_another_kind_is_as_fast_as_all_with_operations_until_it_is_measured():
    todo = {"a": a_step("weak", "a"), "f": a_step("features", "f"), "g": a_step("features", "g")}
    left = TimeLeft(todo, {"a": 10.0, "f": 30.0, "g": 30.0})
    left.remove(todo["a"])
    left.finished(todo["a"], 5.0)
    assert left.estimate([], 0.0) == (30.0, False)
    left.remove(todo["f"])
    left.finished(todo["f"], 60.0)
    assert left.estimate([], 0.0) == (60.0, False)


def test_a_slow_kind_without_operations_makes_it_a_lower_bound():
    todo = {"a": a_step("weak", "a"), "h": a_step("student", "h"), "i": a_step("student", "i")}
    left = TimeLeft(todo, {"a": 1.0})  # heads on features have no operations
    left.remove(todo["a"])
    left.finished(todo["a"], 4.0)
    assert left.estimate([], 0.0) == (0.0, True)
    left.remove(todo["h"])
    left.finished(todo["h"], 3.0)
    assert left.estimate([], 0.0) == (3.0, False)


def test_a_running_step_is_measured_from_its_first_report_on():
    todo = steps()
    left = TimeLeft(todo, COST)
    left.remove(todo["c"])
    line = Underway(todo["c"], 0.0)
    line.report(100.0, 0.5)  # resumed: half was done before, and loading took long
    line.report(110.0, 0.6)
    assert line.rate == pytest.approx(0.01) and line.left(120.0) == pytest.approx(30.0)
    assert left.estimate([line], 120.0).seconds > 30.0  # the others wait
    line.report(121.0, 0.1)  # another part of the work begins
    line.report(122.0, 0.2)
    assert line.rate == pytest.approx(0.1)


def test_steps_that_run_side_by_side_go_on_so_and_none_ends_before_the_longest():
    todo = {f"k{n}": a_step("weak", f"k{n}") for n in range(4)}
    left = TimeLeft(todo, dict.fromkeys(todo, 1.0))
    lines = [Underway(todo[key], 0.0) for key in ("k0", "k1")]
    for line, share in zip(lines, (0.5, 0.1), strict=True):
        left.remove(line.step)
        line.report(5.0, 0.0)
        line.report(10.0, share)
    seconds, is_bound = left.estimate(lines, 10.0)
    assert seconds >= 45.0 and not is_bound  # of the slower one alone
