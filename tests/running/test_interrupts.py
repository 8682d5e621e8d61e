"""A Ctrl-C ends a local run even where Python or C code loses the exception that it raises."""

import signal
from collections.abc import Iterator

import pytest

from tests.testing.specs import tiny_spec
from w2s_ray.plan.build import build
from w2s_ray.running import local
from w2s_ray.running.interrupts import Interrupts
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store


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
