"""Damage of every kind to a finished store: one line, made again, the same results, exit code 0."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.testing.chaos.forks import Forks
from w2s_ray import study
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

OF_RUN = ("seconds", "tokens_per_second", "peak_memory_bytes")


def one(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def empty_record(root: Path) -> None:
    one(root, "student/*/record.json").write_text("{}")


def record_of_another(root: Path) -> None:
    first, second = sorted(root.glob("evaluate/student-*/record.json"))[:2]
    first.write_bytes(second.read_bytes())


def record_of_another_kind(root: Path) -> None:
    one(root, "weak/*/record.json").write_bytes(one(root, "label/*/record.json").read_bytes())


def edited_number(root: Path) -> None:
    record = one(root, "evaluate/student-*/record.json")
    text = record.read_text()
    assert text.count('"accuracy": 0.') == 1
    record.write_text(text.replace('"accuracy": 0.', '"accuracy": 0.9'))


def record_that_is_a_folder(root: Path) -> None:
    record = one(root, "evaluate/weak-*/record.json")
    record.unlink()
    record.mkdir()


def zeros(root: Path) -> None:
    file = one(root, "student/*/test.parquet")
    file.write_bytes(bytes(file.stat().st_size))


def folder_for_a_file(root: Path) -> None:
    file = one(root, "student/*/test.parquet")
    file.unlink()
    file.mkdir()


def missing_file(root: Path) -> None:
    one(root, "ceiling/*/test.parquet").unlink()


def other_features(root: Path) -> None:
    """Two rows change places: every value is one that the backbone computed."""
    file = one(root, "features/pairs-large-*/weak.npy")
    content = bytearray(file.read_bytes())
    content[128:160], content[-32:] = content[-32:], content[128:160]
    file.write_bytes(content)
    shutil.rmtree(root / "student")


def edited_predictions(root: Path) -> None:
    path = root / "predictions/tiny.parquet"
    table = pq.read_table(path)
    index = table.column_names.index("label")
    labels = pa.array([1 - label for label in table["label"].to_pylist()], pa.int64())
    pq.write_table(table.set_column(index, table.schema.field(index), labels), path)


DAMAGES = {
    empty_record: "record.json is without a list of files",
    record_of_another: "record.json is of another step, evaluate",
    record_of_another_kind: "record.json is of another step, label",
    edited_number: "record.json is changed since it was written",
    record_that_is_a_folder: "",
    zeros: "test.parquet has the recorded size and another content than its digest says",
    folder_for_a_file: "test.parquet is missing",
    missing_file: "test.parquet is missing",
    other_features: "weak.npy has the recorded size and another content than its digest says",
    edited_predictions: "",
}


def tables(root: Path) -> dict[str, pa.Table]:
    read = {
        name: pq.read_table(root / name) for name in ("results", "predictions", "train_predictions")
    }
    return {
        name: table.drop_columns([c for c in OF_RUN if c in table.column_names])
        for name, table in read.items()
    }


@pytest.mark.parametrize(
    ("damage", "said"), DAMAGES.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_damage_is_one_line_and_is_made_again(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    root = tmp_path / "store"
    before, keys = tables(root), Store.open(root).finished().keys()
    damage(root)
    for name in ("results", "train_predictions"):
        shutil.rmtree(root / name)
    if damage is not edited_predictions:
        shutil.rmtree(root / "predictions")
    capsys.readouterr()
    assert main([str(finished), "--local"]) == 0
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err and output.err == ""
    lines = [line for line in output.out.splitlines() if "damaged: " in line]
    assert len(lines) == bool(said) and all(said in line for line in lines)
    assert len(list(root.glob("damaged/*/*"))) == bool(said)
    assert tables(root) == before
    assert Store.open(root).finished().keys() == keys
    assert main([str(finished), "--local"]) == 0
    assert "0 steps to do" in capsys.readouterr().out


def test_what_cannot_be_made_whole_ends_in_one_line(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that damages whatever is written to it."""
    commit = Store.artifact

    def artifact(store: Store, key: str):
        found = commit(store, key)
        if found.record["kind"] == "prepare":
            raise found.error("weak.parquet decays")
        return found

    monkeypatch.setattr(Store, "artifact", artifact)
    monkeypatch.setattr(study, "MOST_REPAIRS", 3)
    shutil.rmtree(tmp_path / "store/student")
    assert main([str(finished), "--local"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is damaged: weak.parquet decays" in error


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_actor_that_reads_damage_has_it_made_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    before = tables(root)
    other_features(root)
    zeros_of_labels = one(root, "label/*/soft_labels.parquet")
    zeros_of_labels.write_bytes(bytes(zeros_of_labels.stat().st_size))
    assert main([str(finished), "--set", "execution.max_concurrent_steps=1"]) == 0
    output = capsys.readouterr().out
    assert output.count(" is damaged: weak.npy") == 1 == output.count(" is damaged: soft_labels")
    assert len(list(root.glob("damaged/*/*"))) == 2
    assert tables(root) == before


@pytest.mark.long
def test_two_commands_that_find_the_same_damage_end_with_one_good_artifact(
    finished: Path, tmp_path: Path, forks: Forks
) -> None:
    root = tmp_path / "store"
    before = tables(root)
    other_features(root)
    for evaluation in root.glob("evaluate/*"):
        shutil.rmtree(evaluation)
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    both = [forks.begin(finished, "--local", folder=folder) for folder in folders]
    ended = [forks.ended(run, folder) for run, folder in zip(both, folders, strict=True)]
    outputs = [end.output + end.errors for end in ended]
    assert [end.code for end in ended] == [0, 0], outputs
    assert "Traceback" not in "".join(outputs)
    assert any(" is damaged: weak.npy" in output for output in outputs)
    assert len(list(root.glob("damaged/*/*"))) == 1
    assert len(list(root.glob("features/pairs-large-*"))) == 1
    assert tables(root) == before
