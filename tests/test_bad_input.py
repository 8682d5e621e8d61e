"""Every mistake a user can make is one line, exit code 2, before any work is spent."""

import json

import pytest

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.study import main


def refused(spec, capsys):
    """The one line told for a spec that must be refused, with nothing left in the store."""
    assert main([str(spec), "--local"]) == 2
    output = capsys.readouterr().err.strip()
    assert "\n" not in output and "Traceback" not in output
    assert not list(spec.parent.glob("store/*/*"))
    return output


def test_wrong_loss_name(write_spec, capsys):
    output = refused(write_spec(grid__loss=["forward_kl", "revers_kl"]), capsys)
    assert (
        "study.yaml:" in output and "revers_kl" in output and "did you mean 'reverse_kl'" in output
    )


def test_negative_noise_ratio(write_spec, capsys):
    output = refused(write_spec(grid__noise_ratio=[0.0, -0.1]), capsys)
    assert "noise_ratio" in output and "-0.1" in output and "study.yaml:" in output


def test_duplicate_cell(write_spec, capsys):
    output = refused(write_spec(grid__seed=[0, 1, 0]), capsys)
    assert "study.yaml:" in output and "seed" in output


def test_two_names_for_one_model_make_a_duplicate_cell(write_spec, capsys):
    models = {name: {**TINY_MODEL, "config": tiny_config(16)} for name in ("a", "b", "c")}
    output = refused(write_spec(models=models, grid__pair=[["a", "b"], ["a", "c"]]), capsys)
    assert "two cells compute the same" in output and "'b'" in output and "'c'" in output


def test_missing_file(write_spec, capsys):
    splits = {name: f"{name}.jsonl" for name in ("ground_truth", "weak", "test")}
    data = {"pairs": {"kind": "preference", "splits": splits}}
    assert main([str(write_spec(data=data)), "--local"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # one line a mistake
    assert all("study.yaml:" in line and ".jsonl" in line for line in lines)


def test_row_without_chosen(write_spec, tmp_path, capsys):
    good = {"prompt": "p", "chosen": "yes", "rejected": "no"}
    for name in ("ground_truth", "weak", "test"):
        rows = [{**good, "prompt": f"{name} {n}"} for n in range(20)]
        if name == "weak":
            rows[6] = {"prompt": "p", "choosen": "yes", "rejected": "no"}
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = {name: f"{name}.jsonl" for name in ("ground_truth", "weak", "test")}
    data = {"pairs": {"kind": "preference", "splits": splits}}
    assert main([str(write_spec(data=data)), "--local"]) == 2
    output = capsys.readouterr().err.strip()
    assert "weak.jsonl:7" in output and "did you mean 'choosen'" in output and "\n" not in output


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_unreadable_model(write_spec, tmp_path, capsys, content):
    folder = tmp_path / "broken-model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    models = {
        "small": {**TINY_MODEL, "config": tiny_config(16)},
        "large": {"source": "./broken-model"},
    }
    output = refused(write_spec(models=models), capsys)
    assert "broken-model" in output


@pytest.mark.parametrize(
    ("file", "fields", "expected"),
    [
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}, "(fp8): quantised"),
        ("config.json", {"auto_map": {"AutoModel": "x.X"}}, "auto_map names Python code (x.X)"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.X", None]}}, "code (x.X)"),
        ("adapter_config.json", {"peft_type": "LORA"}, "holds an adapter"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [["--local"], ["--plan"]])
def test_model_that_cannot_be_read_as_it_is(
    write_spec, tmp_path, capsys, file, fields, expected, options
):
    """Before anything is spent: in ``--plan`` already, and whatever the study would load."""
    from tests.testing.tiny_models import tiny

    folder = tmp_path / "model"
    backbone = tiny("llama")
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({**content, **fields}))
    models = {
        "small": {**TINY_MODEL, "config": tiny_config(16)},
        "large": {"source": "./model"},
    }
    spec = write_spec(models=models)
    capsys.readouterr()
    assert main([str(spec), *options]) == 2
    output = capsys.readouterr().err.strip()
    assert expected in output and f"model: {file}" in output and "\n" not in output
    assert not list(spec.parent.glob("store/*/*"))


def test_spec_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nothing.yaml")]) == 2
    assert "nothing.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["store", "store/student", "store/results"])
def test_a_store_that_cannot_be_written(write_spec, tmp_path, capsys, way):
    (tmp_path / way).parent.mkdir(exist_ok=True)
    (tmp_path / way).write_text("a file, not a folder")
    assert main([str(write_spec()), "--local", "--store", str(tmp_path / "store")]) == 2
    output = capsys.readouterr().err.strip()
    assert "\n" not in output and str(tmp_path / "store") in output
    assert not list(tmp_path.glob("store/*/*"))


def test_a_disk_that_fills_up_is_one_line(write_spec, finished, capsys, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (finished.parent / "store/studies/.tiny.made_of.json").unlink()
    monkeypatch.setattr("w2s_ray.store.study_tables.write_results", full)
    assert main([str(finished), "--local"]) == 74
    output = capsys.readouterr().err.strip()
    assert "\n" not in output and "No space left on device" in output
