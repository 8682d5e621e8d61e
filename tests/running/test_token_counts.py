"""Rows are read as tokens before anything is spent; what cannot be read is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from tests.testing.specs import TINY_MODEL, tiny_config
from tests.testing.tokenizer_kinds import byte_level, words
from w2s_ray.plan.build import build
from w2s_ray.running.preflight import prepare_data
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

SIZES = {"ground_truth": 8, "weak": 8, "test": 8}
LONG = " and so on about the harbour" * 20


def save(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A data set of these rows, in a file of ``folder``."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"rows": {"kind": "preference", "source": str(path), "sizes": SIZES, **fields}}


def pairs(ending: str = "") -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Which box, {n}?",
            "chosen": f" Yes {n}{ending}",
            "rejected": f" No {n}{ending}",
        }
        for n in range(24)
    ]


def models(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """Two untrained models that read with ``tokenizer``."""
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        name: {**TINY_MODEL, "config": tiny_config(size), "tokenizer": str(folder / "tokenizer")}
        for name, size in (("small", 16), ("large", 32))
    }


def refused(spec: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a spec that is refused before any model is computed."""
    assert main([str(spec), "--local"]) == 2
    captured = capsys.readouterr()
    output = captured.err.strip()
    assert "\n" not in output and "Traceback" not in output
    kinds = {path.parent.name for path in spec.parent.glob("store/*/*")}
    assert kinds <= {"prepare", "failures", "plans"}
    return output


def test_texts_without_tokens(write_spec, tmp_path, capsys) -> None:
    rows = [{"text": f"The box {n}", "label": n % 2} for n in range(24)]
    for n in (4, 9):
        rows[n] = {"text": "\u200b" * (n + 1), "label": n % 2}
    data = save(tmp_path, rows, kind="classification")
    tokenizer = words()  # that drops zero-width spaces
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    spec = write_spec(data=data, models=models(tmp_path, tokenizer))
    output = refused(spec, capsys)
    assert "rows.jsonl:5" in output or "rows.jsonl:10" in output
    assert "'small'" in output and "without tokens" in output


@pytest.mark.parametrize("trainable", ["full", "last_layer"])
def test_pairs_that_are_all_the_same_after_truncation(
    write_spec, tmp_path, capsys, trainable
) -> None:
    fields = {"data": save(tmp_path, pairs(LONG)), "grid__trainable": [trainable]}
    output = refused(write_spec(**fields, training__max_length_tokens=64), capsys)
    assert "study.yaml:" in output and "max_length_tokens: given 64, expected more" in output
    assert "rows: split ground_truth: model 'small': in all 8 pairs" in output


def test_a_template_that_refuses_a_row_names_its_line(write_spec, tmp_path, capsys) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if '7' in m.content %}{{ raise_exception('no 7') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    spec = write_spec(
        data=save(tmp_path, pairs()),
        models=models(tmp_path, tokenizer),
        training__render="chat_template",
    )
    output = refused(spec, capsys)
    assert ("rows.jsonl:8:" in output) or ("rows.jsonl:18:" in output)
    assert "the chat template refuses it: no 7" in output


@pytest.mark.parametrize("field", [{"training__render": "chat_template"}, {"training__bos": True}])
def test_a_tokenizer_without_template_or_bos(write_spec, tmp_path, capsys, field) -> None:
    spec = write_spec(data=save(tmp_path, pairs()), **field)
    output = refused(spec, capsys)
    assert "study.yaml:" in output and "tokenizer of model 'small' has no" in output


def test_what_was_read_is_reported(write_spec, tmp_path) -> None:
    rows = [row | {"chosen": row["chosen"] + LONG} for row in pairs()[:6]]
    rows += [{**row, "chosen": "a" + LONG, "rejected": "b" + LONG} for row in pairs()[6:12]]
    path = write_spec(
        data=save(tmp_path, rows + pairs()[12:]),
        training__max_length_tokens=64,
        grid__trainable=["full"],
    )
    spec = load(path)
    plan, store = build(spec), Store.open(tmp_path / "store")
    found: dict[str, Any] = {}
    prepare_data(
        spec,
        plan,
        plan.todo(store.finished()),
        store,
        lambda name, report: None,
        lambda data, model, counts: found.update({(data, model): counts}),
    )
    assert found.keys() == {("rows", "small"), ("rows", "large")}
    counts = found["rows", "large"]
    assert (counts["rows"], counts["of_rows"]) == (24, 24)
    assert (counts["truncated"], counts["identical"]) == (12, 6)
    assert found["rows", "small"] == counts
