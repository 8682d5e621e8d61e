"""The display counts what happens, and tells it line by line where nobody watches."""

import io
import re

from rich.console import Console
from rich.table import Table

from tests.testing.steps import a_step
from w2s_ray.console.lines import Display, Lines
from w2s_ray.console.plan_view import flops
from w2s_ray.console.progress import ProgressDisplay
from w2s_ray.running.run_state import RunState


def steps():
    chain = {"a": {}, "b": {"in": "a"}, "c": {"in": "b"}, "d": {"in": "a"}}
    return {key: a_step("student", key, inputs=inputs) for key, inputs in chain.items()}


def display_of(todo, console, display=None):
    lines = Lines(console, display)
    names = {key: f"named {key}" for key in todo}
    return ProgressDisplay(RunState(todo, 7, {}), lines, names, explain="w2s spec --explain")


def test_it_counts_done_running_waiting_failed_and_blocked():
    todo = steps()
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with display_of(todo, console) as display:
        display("started", todo["a"], {})
        display("done", todo["a"], {})
        display("started", todo["b"], {})
        display("started", todo["d"], {})
        display("progress", todo["d"], {"step": 3, "steps": 9, "loss": 0.5})
        display("failed", todo["b"], {"error": "ValueError: no"})
        drawn = io.StringIO()
        Console(file=drawn, width=160).print(display._drawn())
    output = drawn.getvalue()
    assert "1/4 steps done, 1 running, 0 waiting, 1 failed (1 blocked)" in output
    assert "student named d" in output and "3/9 steps" in output and "loss 0.5000" in output


def test_in_a_pipe_each_event_is_a_line_and_many_of_one_moment_are_one():
    todo = {f"k{n}": a_step("student", f"k{n}") for n in range(9)}
    console = Console(file=io.StringIO(), width=60)
    with display_of(todo, console) as display:
        for step in todo.values():
            display("started", step, {})
        for step in list(todo.values())[:2]:
            display("done", step, {"seconds": 1.0})
    assert console.file.getvalue().splitlines() == [
        "started  9 students: first student named k0, last student named k8",
        "done     student named k0",
        "done     student named k1",
    ]


def test_a_log_has_the_time_before_every_line():
    todo, console = steps(), Console(file=io.StringIO(), width=60)
    with display_of(todo, console, Display.LOG) as display:
        display("started", todo["a"], {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d started .*\n", console.file.getvalue())


def test_without_a_display_failures_alone_are_told_with_their_traceback():
    todo, console = steps(), Console(file=io.StringIO(), width=60)
    with display_of(todo, console, Display.NONE) as display:
        display("started", todo["a"], {})
        display("progress", todo["a"], {"step": 1, "steps": 2})
        display("failed", todo["a"], {"error": "ValueError: [odd] text " + "x" * 100})
    assert console.file.getvalue().splitlines() == [
        "failed: student named a (a): ValueError: [odd] text " + "x" * 100,
        "        its traceback: w2s spec --explain a",
    ]


def test_whom_a_group_waits_for_is_said_once():
    todo, console = steps(), Console(file=io.StringIO(), width=120)
    with display_of(todo, console, Display.NONE) as display:
        for key in "ab":
            display("started", todo[key], {})
            display("progress", todo[key], {"waiting": "waiting for weak a, held by process 1"})
            display("progress", todo[key], {"waiting": "waiting for weak a, held by process 2"})
    said = console.file.getvalue().splitlines()
    assert said == [f"waiting for weak a, held by process {n}" for n in (1, 2)]


def test_from_which_update_a_step_goes_on_is_said_once():
    todo, console = steps(), Console(file=io.StringIO(), width=120)
    with display_of(todo, console, Display.NONE) as display:
        display("started", todo["a"], {})
        for update in (1200, 1201):
            display("progress", todo["a"], {"step": update, "steps": 6000, "resumed_at": 1199})
    said = console.file.getvalue().splitlines()
    assert said == ["resumed  student named a after update 1,199 of 6,000"]


def test_flops_have_three_digits_and_a_prefix():
    assert [flops(n) for n in (12, 3_210, 4.5e15)] == ["12 FLOP", "3.21 kFLOP", "4.5 PFLOP"]


def test_in_a_log_each_line_of_a_table_has_its_time():
    console = Console(file=io.StringIO(), width=60)
    table = Table("loss", title="scores")
    table.add_row("forward_kl")
    Lines(console, Display.LOG).drawn(table)
    lines = console.file.getvalue().splitlines()
    assert len(lines) > 4 and "forward_kl" in lines[-2]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
