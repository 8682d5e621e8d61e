"""An end of the training that is asked for from outside, after a signal.

The loop finishes the update that it is in, saves its state and raises KeyboardInterrupt, as the
signal would have done at once: the next run goes on from there, not from the last checkpoint that
was due. A loop without checkpoints, and all other work, is not asked but interrupted.

Like a signal, this belongs to the process: one loop trains in it, and whoever asks (a handler, the
main thread of an actor) is somewhere else.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE = (
    "ending: training saves a checkpoint after this update, then the run ends; "
    "a second signal ends it at once"
)


class _State:
    hearing = False
    asked = False


@contextmanager
def hearing(can_save: bool) -> Iterator[None]:
    """A loop trains, and looks at ``asked`` at each update; one that cannot save does not hear."""
    _State.hearing, _State.asked = can_save, False
    try:
        yield
    finally:
        _State.hearing = _State.asked = False


def ask() -> bool:
    """Asks the loop of this process to end; False if none trains that could save its state."""
    _State.asked = _State.hearing
    return _State.asked


def asked() -> bool:
    """Whether the loop of this process is to end."""
    return _State.asked


def tell(say: Callable[[str], object]) -> None:
    """Says that the end is under way; to be called in a signal handler.

    The handler may have interrupted a write to the same stream, so a thread says it.
    """
    threading.Thread(target=say, args=(LINE,), name="early-end", daemon=True).start()
