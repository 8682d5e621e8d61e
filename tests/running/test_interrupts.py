"""A Ctrl-C ends a local run even where Python or C code loses the exception that it raises."""

import signal
import threading
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.plan.build import build
from w2s_ray.running import local
from w2s_ray.running.interrupts import Interrupts
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training.early_end import LINE


class Dropped:
    """Python ignores what is raised while an object is removed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _python_s_own_handler() -> Iterator[None]:
    """A library that another test has started may have put its own handler there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_raised_at_the_next_check() -> None:
    with Interrupts() as interrupts:
        interrupts.check()
        Dropped()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.long
def test_the_first_signal_ends_training_after_its_update_and_with_a_checkpoint(tmp_path):
    """Of a student whose whole model is trained; the rerun goes on there and changes no bit."""
    models = {name: {**TINY_MODEL, "config": tiny_config(16)} for name in ("small", "large")}
    grid = {"pair": [["small", "large"]], "trainable": ["full"], "seed": [0]}
    plan = build(Spec.model_validate(tiny_spec(models=models, grid=grid)))
    (student,) = (step for step in plan if step.kind.name == "student")
    straight, cut = Store.open(tmp_path / "straight"), Store.open(tmp_path / "cut")
    local.run(plan.steps, straight)
    said = []

    def interrupted(event, step, numbers):
        if event == "progress" and step is student and numbers["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        local.run(plan.steps, cut, interrupted, say=said.append)
    assert cut.listing("claims") == []
    assert Checkpoints(cut, student.key).latest().update == 3
    for thread in threading.enumerate():
        if thread.name == "early-end":
            thread.join()
    assert said == [LINE]
    resumed = set()

    def note(event, step, numbers):
        if "resumed_at" in numbers:
            resumed.add((event, step.key, numbers["resumed_at"]))

    local.run({key: plan.steps[key] for key in plan.todo(cut.finished())}, cut, note)
    assert resumed == {("progress", student.key, 3)}
    one, other = (store.artifact(student.key) for store in (straight, cut))
    assert other.record["metrics"]["checkpoints"]["resumed_at"] == 3
    for name in ("test.parquet", "curve.parquet"):
        assert pq.read_table(one.file(name)).equals(pq.read_table(other.file(name)))


def test_a_second_signal_interrupts_training_at_once():
    with Interrupts(lambda: True) as interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_local_run_ends_where_the_interrupt_became_another_error(tmp_path, monkeypatch) -> None:
    """As when it comes in the midst of an import: the steps of the group fail, no other starts."""
    plan = build(Spec.model_validate(tiny_spec()))
    started = []

    def execute_group(group, store, context):
        started.append(group)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return {step.key: ImportError("partially initialized module") for step in group}

    monkeypatch.setattr(local, "execute_group", execute_group)
    with pytest.raises(KeyboardInterrupt):
        local.run(plan.steps, Store.open(tmp_path / "store"))
    assert len(started) == 1
