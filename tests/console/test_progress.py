"""The display counts what happens, and says nothing where nobody watches."""

import io

from rich.console import Console

from tests.testing.steps import a_step
from w2s_ray.console.plan_view import flops
from w2s_ray.console.progress import ProgressDisplay


def steps():
    chain = {"a": {}, "b": {"in": "a"}, "c": {"in": "b"}, "d": {"in": "a"}}
    return {key: a_step("student", key, inputs=inputs) for key, inputs in chain.items()}


def test_it_counts_done_running_waiting_failed_and_blocked():
    todo, out = steps(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with ProgressDisplay(todo, 7, console) as display:
        display("started", todo["a"], {})
        display("done", todo["a"], {})
        display("started", todo["b"], {})
        display("started", todo["d"], {})
        display("progress", todo["d"], {"step": 3, "steps": 9, "loss": 0.5})
        display("failed", todo["b"], {"error": "ValueError: no"})
        drawn = io.StringIO()
        Console(file=drawn, width=120).print(display._draw())
    output = drawn.getvalue()
    assert "1/4 steps done" in output
    assert "1 running  0 waiting  1 failed (1 blocked)" in output
    assert "7 from the store" in output
    assert "3/9 steps" in output and "loss 0.5000" in output


def test_it_is_quiet_when_not_on_a_terminal_but_for_failures():
    todo, out = steps(), io.StringIO()
    with ProgressDisplay(todo, 0, Console(file=out, force_terminal=False, width=60)) as display:
        display("started", todo["a"], {})
        display("progress", todo["a"], {"step": 1, "steps": 2})
        display("failed", todo["a"], {"error": "ValueError: [odd] text " + "x" * 100})
    assert out.getvalue().splitlines() == [
        "failed: student a-a: ValueError: [odd] text " + "x" * 100
    ]


def test_whom_a_group_waits_for_is_said_once():
    todo = steps()
    console = Console(file=io.StringIO(), width=120)
    with ProgressDisplay(todo, 0, console) as display:
        for key in "ab":
            display("started", todo[key], {})
            display("progress", todo[key], {"waiting": "waiting for weak a, held by process 1"})
            display("progress", todo[key], {"waiting": "waiting for weak a, held by process 2"})
    said = console.file.getvalue().splitlines()
    assert said == [f"waiting for weak a, held by process {n}" for n in (1, 2)]


def test_flops_have_three_digits_and_a_prefix():
    assert [flops(n) for n in (12, 3_210, 4.5e15)] == ["12 FLOP", "3.21 kFLOP", "4.5 PFLOP"]
