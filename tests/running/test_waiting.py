"""A driver that waits for another says whom for, since when, and where."""

import re
import socket
import subprocess
import sys
import time

import pytest

from w2s_ray.plan.build import build
from w2s_ray.running import waiting
from w2s_ray.running.runner import execute_group
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store

HOLD = """
import sys, time
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity
store, key = Store.open(sys.argv[1]), sys.argv[2]
with store.claim(key) as held:
    print(held, flush=True)
    sys.stdin.readline()
    with store.draft(Identity(sys.argv[3], key, "pairs", 1, {}, {}), {}) as draft:
        draft.metrics["made_by"] = "another"
"""


@pytest.fixture
def first_step(write_spec):
    return next(iter(build(load(write_spec()))))


def test_who_holds_a_step_is_said_once_while_it_is_waited_for(first_step, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "SAID_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "ASKED_EVERY_SECONDS", 0.1)
    store, key = Store.open(tmp_path / "store"), first_step.key
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.uri, key, first_step.kind.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "True\n"
    said, asked = [], []

    def progress(numbers):
        said.append(numbers)

    ask = store.holder

    def asking(key):
        asked.append(key)
        if len(asked) == 3:  # it was asked again, and nothing new was to be said
            holder.stdin.write("go\n")
            holder.stdin.flush()
        return ask(key)

    monkeypatch.setattr(store, "holder", asking)
    outcome = execute_group([first_step], store, Context(progress))[key]
    assert outcome == {"made_by": "another"} and holder.wait(60) == 0
    ((name, line),) = (item for numbers in said for item in numbers.items())
    expected = (
        rf"waiting for {first_step.kind.name} {re.escape(first_step.slug)}, held by process "
        rf"{holder.pid} on {re.escape(socket.gethostname())} since \d\d:\d\d "
        r"\(last sign of life \d s ago\)"
    )
    assert name == "waiting" and re.fullmatch(expected, line), line


def test_of_a_step_that_nobody_holds_nothing_is_said(first_step, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "SAID_AFTER_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "ASKED_EVERY_SECONDS", 0.0)
    store = Store.open(tmp_path / "store")
    said = []
    wait = waiting.Waiting(store, said.append)
    for _ in range(3):
        wait([first_step])
    assert said == []
    with store.claim(first_step.claim):
        wait([first_step])
    assert len(said) == 1


@pytest.mark.parametrize("others", [0, 1_999])
def test_the_line_counts_the_steps_and_dates_an_old_claim(first_step, others):
    holder = waiting.Holder("box", 12, time.time() - 5 * 86_400, 3.2)
    line = waiting._line(first_step, others, holder)
    assert (" and 1,999 other steps, held" in line) == bool(others)
    assert re.search(r"process 12 on box since \d{4}-\d\d-\d\d \d\d:\d\d \(last sign", line)
