"""Lines of text on the console: without secrets, never wrapped, with the time in a log."""

import time
from enum import StrEnum

from rich.console import Console, RenderableType

from w2s_ray.masking import masked


class Display(StrEnum):
    """How a run is shown while it goes on.

    ``rich`` is a live display, ``plain`` one line each half minute and at each event, ``log`` the
    same with the time before every line, ``none`` failures and notes alone.
    """

    RICH = "rich"
    PLAIN = "plain"
    LOG = "log"
    NONE = "none"


class Lines:
    """Prints lines on a console; may be called from any thread.

    Attributes:
        display: how the run is shown; by default live on a terminal, and plain elsewhere.
    """

    def __init__(self, console: Console, display: Display | None = None) -> None:
        self.console = console
        self.display = display or (Display.RICH if console.is_terminal else Display.PLAIN)

    def __call__(self, text: str, style: str | None = None) -> None:
        """Prints one line."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S ") if self.display is Display.LOG else ""
        self.console.print(
            stamp + masked(text), style=style, markup=False, highlight=False, soft_wrap=True
        )

    def drawn(self, what: RenderableType) -> None:
        """Prints a table, each of its lines as a line."""
        if self.display is not Display.LOG:
            self.console.print(what)
            return
        with self.console.capture() as captured:
            self.console.print(what)
        for line in captured.get().splitlines():
            self(line.rstrip())


def duration(seconds: float) -> str:
    """``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
