"""Secrets in addresses of store, data and models are in no file of the store and in no output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.data.sources import read_rows
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.study import main

SECRET = "pl4nted/S3CRET"
FAKE_TOKEN = "hf_Pl4ntedPl4ntedPl4ntedPl4nted"
QUERY = f"?region=x&X-Amz-Signature={SECRET}&token={FAKE_TOKEN}"
MODELS = {name: {**TINY_MODEL, "config": tiny_config(16)} for name in ("small", "large")}
MODELS["large"]["init_seed"] = 1
LONG = "x" * 300 + SECRET
SIZES = {"ground_truth": 1, "weak": 1, "test": 1}
REFUSED = f"s3://KEY:{SECRET}@bucket/{FAKE_TOKEN}/model{QUERY}"


def is_clean(text: str) -> bool:
    return SECRET not in text and "S3CRET" not in text and FAKE_TOKEN not in text


def files_with_secrets(folder: Path) -> list[str]:
    """Names of files, at any depth, that hold a secret in their name or content."""
    return [
        str(path)
        for path in folder.rglob("*")
        if not is_clean(str(path.relative_to(folder)))
        or (path.is_file() and not is_clean(path.read_bytes().decode(errors="replace")))
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Three files of pairs, by split: their addresses, without a secret."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("ground_truth", "weak", "test"):
        rows = [
            {"prompt": f"{split} {n}", "chosen": "yes", "rejected": f"no {n}"} for n in range(24)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        split: (folder / f"{split}.jsonl").as_uri() for split in ("ground_truth", "weak", "test")
    }


def with_secrets(files: dict[str, str]) -> dict[str, object]:
    splits = {split: f"{uri}{QUERY}" for split, uri in files.items()}
    return {"pairs": {"kind": "preference", "splits": splits}}


def test_a_finished_run_shows_no_secret_anywhere(write_spec, files, tmp_path, capfd):
    store = f"{(tmp_path / 'store').as_uri()}{QUERY}"
    spec = write_spec(
        data=with_secrets(files), models=MODELS, store=store, grid__loss=["forward_kl"],
        execution={"export_models": ["student"]},
    )  # fmt: skip
    for options in (
        ["--plan"],
        ["--plan", "--json"],
        ["--local"],
        ["--status"],
        ["--local", "--json"],
    ):
        assert main([str(spec), *options]) == 0
    output = "".join(capfd.readouterr())
    assert is_clean(output) and "results/tiny.parquet" in output
    records = list((tmp_path / "store").glob("prepare/*/record.json"))
    assert records and "?region=x&X-Amz-Signature=***" in records[0].read_text()
    assert files_with_secrets(tmp_path / "store") == []


def test_a_failed_run_shows_no_secret_anywhere(write_spec, files, tmp_path, capfd):
    path = tmp_path / "data/weak.jsonl"
    path.write_text(path.read_text() + '\n{"prompt": "p"}')
    spec = write_spec(data=with_secrets(files), models=MODELS)
    assert main([str(spec), "--local"]) == 2
    for options in (["--plan"], ["--plan", "--json"], ["--status"]):
        assert main([str(spec), *options]) == 0
    output = "".join(capfd.readouterr())
    assert is_clean(output) and "weak.jsonl?region=x&X-Amz-Signature=***" in output
    assert list((tmp_path / "store").glob("failures/*.json"))
    assert files_with_secrets(tmp_path / "store") == []


def test_an_error_of_a_library_in_a_step_shows_no_secret(
    write_spec, files, tmp_path, capfd, monkeypatch
):
    def fail(*arguments: object) -> None:
        raise OSError(f"403 Forbidden: {REFUSED}")

    monkeypatch.setattr("w2s_ray.steps.label.run", fail)
    spec = write_spec(data=with_secrets(files), models=MODELS)
    assert main([str(spec), "--local"]) == 1
    assert main([str(spec), "--status"]) == 0
    output = "".join(capfd.readouterr())
    assert is_clean(output) and "403 Forbidden: s3://***@bucket/hf_***/model?region=x" in output
    assert files_with_secrets(tmp_path / "store") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"models": {**MODELS, "large": {"source": REFUSED}}},
        {"models": {**MODELS, "large": {**MODELS["large"], "tokenizer": REFUSED}}},
        {"models": {**MODELS, "large": {"source": f"KEY:{SECRET}@bucket"}}},
        {"models": {**MODELS, "large": [REFUSED]}},
        {"data": {"pairs": {"kind": "preference", "source": REFUSED, "sizes": SIZES}}},
        {"data": {"pairs": {"kind": "preferences", "splits": {"test": [REFUSED, [REFUSED]]}}}},
        {
            "data": {
                "pairs": {"kind": "preference", "source": f"s3://K:{LONG}@b/c d", "sizes": SIZES}
            }
        },
        {
            "data": {
                "pairs": {"kind": "preference", "source": f"s3://K:a {SECRET}@b", "sizes": SIZES}
            }
        },
        {"store": f"gopher:/K:{SECRET}@b"},
        {"study": REFUSED},
    ],
)
def test_what_is_refused_shows_no_secret(write_spec, capfd, changes):
    assert main([str(write_spec(**changes)), "--local"]) == 2
    output = "".join(capfd.readouterr())
    assert is_clean(output) and "***" in output


def test_options_that_are_refused_show_no_secret(write_spec):
    command = [sys.executable, "-m", "w2s_ray.study", str(write_spec()), "--sotre", REFUSED]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and is_clean(run.stdout + run.stderr)
    assert "s3://***@bucket" in run.stderr


def test_keys_do_not_depend_on_secrets(write_spec, files):
    plain = {"pairs": {"kind": "preference", "splits": files}}
    keys = [
        [cell.keys for cell in build(load(write_spec(data=data, models=MODELS))).cells]
        for data in (plain, with_secrets(files))
    ]
    assert keys[0] == keys[1]


def test_the_places_of_rows_show_no_secret(files, tmp_path):
    places = [place for place, _ in read_rows(f"{(tmp_path / 'data').as_uri()}{QUERY}")]
    assert len(places) == 3 * 24 and is_clean("".join(places))
    assert places[0] == f"{files['ground_truth']}:1"
