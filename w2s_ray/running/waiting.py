"""Waiting for steps that another process computes, and saying who that is."""

import time
from collections.abc import Sequence
from contextlib import suppress

from w2s_ray.errors import InputError
from w2s_ray.plan.step import Step
from w2s_ray.store.artifacts import POLL_SECONDS, Store
from w2s_ray.store.owners import Holder
from w2s_ray.training.progress import Progress

SAID_AFTER_SECONDS = 5.0
ASKED_EVERY_SECONDS = 30.0  # from then on, in case the holder changes


class Waiting:
    """Waits a moment at a time, and reports who holds the steps."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._next = 0.0  # when to ask who holds the steps, by ``time.monotonic``
        self._said: tuple[str, int, float] | None = None

    def __call__(self, steps: Sequence[Step]) -> None:
        """Waits ``POLL_SECONDS`` for steps that are held, or finished by now.

        A new holder goes to ``progress`` as one line, under ``waiting``.
        """
        now = time.monotonic()
        if not self._next:
            self._next = now + SAID_AFTER_SECONDS
        elif now >= self._next:
            self._next = now + ASKED_EVERY_SECONDS
            with suppress(OSError, InputError):
                self._report(steps)
        time.sleep(POLL_SECONDS)

    def _report(self, steps: Sequence[Step]) -> None:
        for step in steps:
            holder = self._store.holder(step.claim)
            if holder is None:  # finished, or released a moment ago
                continue
            if holder[:3] != self._said:
                self._said = holder[:3]
                self._progress({"waiting": _line(step, len(steps) - 1, holder)})
            return


def _line(step: Step, others: int, holder: Holder) -> str:
    more = f" and {others:,} other steps" if others else ""
    recent = time.time() - holder.since < 43_200
    since = time.strftime("%H:%M" if recent else "%Y-%m-%d %H:%M", time.localtime(holder.since))
    return (
        f"waiting for {step.kind.name} {step.slug}{more}, held by process {holder.pid} on "
        f"{holder.host} since {since} (last sign of life {holder.silent_seconds:.0f} s ago)"
    )
