"""Nothing foreign steers a terminal: in errors, in notes on failures, on the console, in cards."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.testing.exports import card
from w2s_ray.console.terminal import Escaped, open_console
from w2s_ray.errors import InputError, line_of
from w2s_ray.foreign.markdown import code_span
from w2s_ray.models.model_card import write_card
from w2s_ray.printable import LONGEST_LINE, printable, shortened
from w2s_ray.spec.messages import SpecError
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.store.failures import note_of

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x00\x9b2J\u202eright\u2066to\u200eleft\ud800\ufeff\x7f"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def test_each_control_is_written_by_number() -> None:
    assert printable("a\x1b[1m\x00\u202e\ud800") == r"a\u001b[1m\u0000\u202e\ud800"


@pytest.mark.parametrize("text", ["größer", "日本語", "a\tb\n", "👩\u200d🔬", "σ(r) − ½", ""])
def test_texts_of_any_script_are_unchanged(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(codec=None)))
def test_what_is_printable_can_be_encoded_stays_and_steers_nothing(text: str) -> None:
    made = printable(text)
    made.encode()
    assert not STEERING.search(made)
    assert printable(made) == made


def test_a_long_text_says_how_much_was_left_out() -> None:
    assert shortened("x" * 12, 10) == "x" * 10 + "… (2 more characters)"
    assert len(str(InputError("x" * 10_000_000))) < LONGEST_LINE + 50


@pytest.mark.parametrize("made", [InputError(HOSTILE), SpecError([HOSTILE, "x"])])
def test_no_error_of_input_steers_a_terminal(made: InputError) -> None:
    assert not STEERING.search(str(made)) and r"\u001b[31mred" in str(made)


def test_no_note_of_a_failure_steers_a_terminal() -> None:
    error = OSError(HOSTILE)
    assert not STEERING.search(line_of(error))
    assert not any(STEERING.search(text) for text in note_of(error).values())
    assert not any(STEERING.search(text) for text in note_of(HOSTILE).values())


def printed(monkeypatch: pytest.MonkeyPatch, what: object) -> str:
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    open_console(stderr=False).print(what, markup=False, highlight=False)
    return output.getvalue()


def test_lines_and_cells_on_the_console_are_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(title=Text(HOSTILE))
    table.add_column(Text(HOSTILE))
    table.add_row(Text(HOSTILE))
    for what in (HOSTILE, Text(HOSTILE), table):
        text = printed(monkeypatch, what)
        assert "red" in text and not STEERING.search(text)


def test_colours_of_our_own_stay() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system="standard")
    console.print(Escaped(Text("x\x1b[31m", style="green")))
    assert output.getvalue() == "\x1b[32mx\\u001b[31m\x1b[0m\n"


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("model", "`model`"),
        ("a`b", "``a`b``"),
        ("``", "``` `` ```"),
        ("a\n# b", "`a # b`"),
        ("", "`  `"),
        ("<script>\x1b", r"`<script>\u001b`"),
    ],
)
def test_a_name_in_markdown_is_code(name: str, span: str) -> None:
    assert code_span(name) == span


def test_a_folder_or_class_of_any_name_marks_nothing_up_in_a_card(tmp_path: Path) -> None:
    hostile = "x`|[a](http://b)\n\n# Owned <img src=x>\x1b"
    made = card(1)
    model = ModelSpec(source=f"/models/{hostile.replace('/', '')}")
    file = tmp_path / "README.md"
    write_card(
        file, made.__class__(**{**made.__dict__, "model": model, "classes": (hostile, "b")}), "fp32"
    )
    text = file.read_text()
    assert "\n# Owned" not in text and "\x1b" not in text
    (row,) = (line for line in text.splitlines() if line.startswith("| base |"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    for span in re.findall(r"``[^\n]*?``", text):
        assert "Owned" in span
