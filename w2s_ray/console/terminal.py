"""The console of the command: whatever is printed on it, only the console steers the terminal.

Names of columns and classes, paths and errors come from files. Everything that is drawn (lines,
cells of tables) is made printable in one place, after it is laid out and before colours are added.
"""

from typing import cast

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    RenderableType,
    RenderHook,
    RenderResult,
)
from rich.segment import Segment

from w2s_ray.console.lines import Display
from w2s_ray.printable import printable

WIDTH = 120  # of tables that go to a file or a pipe


def open_console(*, stderr: bool, display: Display | None = None) -> Console:
    """The console of a run, on standard output or standard error.

    Args:
        display: that was asked for; a live one needs a terminal, or is to be taken for one.
    """
    console = Console(stderr=stderr, force_terminal=True if display is Display.RICH else None)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    console.push_render_hook(_Printable())
    return console


class Escaped:
    """Anything that Rich can draw, with its texts ``printable``."""

    def __init__(self, drawn: RenderableType) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._drawn, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


class _Printable(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        # A hook of Rich's live display, which runs after this one, adds what steers the cursor.
        return [cast(ConsoleRenderable, Escaped(each)) for each in renderables]
