"""Each kind of mistake gives exactly one message, with the line of the key or item at fault."""

from pathlib import Path

import pytest

from tests.testing.mistakes import GOOD, MISTAKES_IN_FIELDS
from tests.testing.mistakes_of_form import MISTAKES_OF_FORM
from tests.testing.mistakes_of_selection import MISTAKES_OF_SELECTION
from w2s_ray.errors import InputError, at
from w2s_ray.spec.loading import load, located

MISTAKES = MISTAKES_IN_FIELDS | MISTAKES_OF_FORM | MISTAKES_OF_SELECTION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "big").mkdir()
    for name in ("truth.jsonl", "weak.jsonl"):
        (tmp_path / name).write_text("")
    return tmp_path


def message_of(folder: Path, text: str) -> str:
    path = folder / "specs" / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load(path)
    return str(error.value)


def test_the_spec_without_mistakes_loads(folder: Path) -> None:
    path = folder / "specs" / "a.yaml"
    path.write_text(GOOD)
    assert load(path).study == "s"


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_exact_line(folder: Path, kind: str) -> None:
    right, wrong, line = MISTAKES[kind]
    assert right in GOOD
    expected = f"{folder}/specs/a.yaml:{line}".replace("<HERE>", str(folder))
    assert message_of(folder, GOOD.replace(right, wrong, 1)) == expected


def test_all_mistakes_are_reported_in_file_order(folder: Path) -> None:
    text = GOOD.replace("epochs: 1", "epochs: 0\n  precision: fp8").replace("weak: 3", "weak: x")
    lines = [
        line.split(": ")[0].rpartition(":")[2] for line in message_of(folder, text).splitlines()
    ]
    assert lines == ["6", "14", "15"]


@pytest.mark.parametrize("number", range(len(GOOD.splitlines())))
def test_an_unknown_field_is_reported_at_any_line(folder: Path, number: int) -> None:
    rows = GOOD.splitlines()
    indent = len(rows[number]) - len(rows[number].lstrip())
    rows.insert(number, f"{' ' * indent}zzz: {{}}")
    first = message_of(folder, "\n".join(rows)).splitlines()[0]
    assert first.startswith(f"{folder}/specs/a.yaml:{number + 1}: ")
    assert "zzz" in first


def test_files_that_cannot_be_read(folder: Path) -> None:
    specs = folder / "specs"
    (specs / "gpt2.yaml").write_text(GOOD)
    (specs / "latin.yaml").write_bytes(b"study: \xff")
    expected = {
        "gtp2.yaml": "no such file, expected a spec; did you mean 'gpt2.yaml'?",
        "latin.yaml": "byte 7 is not UTF-8, expected text",
        ".": "given a folder, expected a regular file",
    }
    for name, line in expected.items():
        with pytest.raises(InputError) as error:
            load(specs / name)
        assert str(error.value) == f"{specs / name}: {line}"


def test_an_error_after_loading_gets_the_line_of_its_field(folder: Path) -> None:
    path = folder / "specs" / "a.yaml"
    path.write_text(GOOD)

    def line(message: str, *place: int | str) -> str:
        with pytest.raises(InputError) as error, located(path):
            raise InputError(message, place)
        return str(error.value).removeprefix(f"{path}")

    assert line("it is broken", "models", "big") == ":9: models.big: it is broken"
    assert line("grid: no", "grid") == ":10: grid: no"
    written = "training.lora.rank: no"  # not in the text: reported at its nearest parent
    assert line(written, "training", "lora", "rank") == f":13: {written}"
    assert line("somewhere else") == "somewhere else"


def test_the_innermost_location_of_an_error_is_kept() -> None:
    with pytest.raises(InputError) as error, at("models", "big"), at("data", "hh"):
        raise InputError("x")
    assert error.value.place == ("data", "hh")
