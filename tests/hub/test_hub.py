"""What an upload to the Hub would hold, and how one ends that cannot be made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from w2s_ray.hub.__main__ import main
from w2s_ray.hub.contents import of_results

pytestmark = pytest.mark.long


@pytest.fixture
def store(finished_store: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "store"
    shutil.copytree(finished_store, copy)
    return copy


def test_a_dry_run_lists_exactly_what_would_be_uploaded(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = store / "reports" / "tiny" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>report</p>")
    assert main([str(store), "tiny", "--to", "me/tiny", "--dry-run"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == "dataset me/tiny:"
    assert last == "nothing was uploaded (--dry-run)"
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines}
    tables = {f"{name}/tiny.parquet" for name in ("results", "predictions", "train_predictions")}
    assert sizes.keys() == {"README.md", "report/index.html", *tables}
    for table in tables:
        assert sizes[table] == (store / table).stat().st_size


def test_the_card_tells_the_hub_which_file_each_table_is(store: Path) -> None:
    card = DatasetCard(of_results(str(store), "tiny").card or "")
    configs = {config["config_name"]: config["data_files"] for config in card.data.configs}
    assert configs["results"] == "results/tiny.parquet"
    for path in configs.values():
        assert (store / path).is_file()
    assert "| `results` | 4 |" in card.text


def test_an_export_is_a_model_and_is_found_by_its_key(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = (store / "weak").iterdir()
    (folder / "export").mkdir()
    (folder / "export" / "config.json").write_text("{}")
    key = folder.name.rpartition("-")[2]
    assert main([str(store), "--model", key[:8], "--to", "me/weak", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[1].split()) == ("model me/weak:", ["2", "config.json"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no results of a study 'nothing'"),
        (["--model", "zzz"], "0 exported models with a key that begins with 'zzz'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    store: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(store), *arguments, "--to", "me/x", "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_hub_that_does_not_answer_is_one_line(store: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret"}
    environment.pop("HF_HUB_OFFLINE", None)
    run = subprocess.run(
        [sys.executable, "-m", "w2s_ray.hub", str(store), "tiny", "--to", "me/tiny"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 74, run.stderr
    line = run.stderr.splitlines()[-1]
    assert line.startswith("me/tiny: nothing was uploaded to the Hub: ")
    assert "hf_secret" not in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
