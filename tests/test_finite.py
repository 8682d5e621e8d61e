"""What is not finite is said where it arises, fails what it belongs to, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.heads import assert_same, labels, problem
from tests.testing.heads import job as head_job
from tests.testing.jobs import job, rows
from tests.testing.specs import TINY_MODEL, tiny_config
from tests.testing.tiny_models import tiny
from w2s_ray.data.labels import labels_table, probs_column, soft_labels_of
from w2s_ray.data.tokens import encode
from w2s_ray.finite import check_rows
from w2s_ray.models.inference import last_states, scorer_logits
from w2s_ray.models.scorer import Scorer
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.study import main
from w2s_ray.training.batched_lora import fit_batched_lora
from w2s_ray.training.fit import fit
from w2s_ray.training.head_job import HeadJob
from w2s_ray.training.heads import FittedHead, HeadData, fit_heads
from w2s_ray.training.validation import HeldOut

NOT_FINITE = [np.nan, np.inf, -np.inf]


@given(
    st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=9),
)
def test_the_first_bad_row_is_named_and_finite_numbers_are_accepted(values: list[Any]) -> None:
    array = np.array(values, dtype=np.float32)
    ids = [f"id{n}" for n in range(len(array))]
    bad = [n for n, row in enumerate(values) if not all(np.isfinite(row))]
    if not bad:
        check_rows(array, "scores", ids)
        return
    with pytest.raises(FloatingPointError) as raised:
        check_rows(array, "scores", ids)
    expected = f"scores are not finite for {len(bad)} of {len(array)} rows, the first of them row "
    assert str(raised.value).startswith(f"{expected}id{bad[0]} (")


# Models whose weights hold such a number


@pytest.fixture
def broken(tmp_path: Path) -> ModelSpec:
    """A stored model that has no number for one letter, the exclamation mark."""
    folder = tmp_path / "broken"
    backbone = tiny("llama")
    ids = backbone.tokenizer("!", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        backbone.module.get_input_embeddings().weight[ids] = torch.nan
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return ModelSpec(source=str(folder))


def loaded(spec: ModelSpec) -> Any:
    from w2s_ray.models.backbone import load_backbone

    return load_backbone(spec, "fp32", "cpu")


def hit(table: pa.Table) -> list[str]:
    """Ids of the rows with the letter."""
    texts = (row["prompt"] + "".join(row["answers"]) for row in table.to_pylist())
    return [i for i, text in zip(table["row_id"].to_pylist(), texts, strict=True) if "!" in text]


def test_features_and_logits_name_row_and_weights(broken: ModelSpec) -> None:
    backbone, table = loaded(broken), rows(20)
    bad = hit(table)
    assert 0 < len(bad) < 20
    tokens = encode(table, backbone.tokenizer, 64)
    scorer = Scorer(backbone.module, backbone.hidden_size, 2, 2, seed=0)
    torch.nn.init.ones_(scorer.head.weight)
    for compute in (lambda: last_states(backbone, tokens), lambda: scorer_logits(scorer, tokens)):
        with pytest.raises(FloatingPointError) as raised:
            compute()
        said = str(raised.value)
        assert f"for {len(bad)} of 20 rows, the first of them row {bad[0]} (nan)" in said
        assert "so are 32 numbers of the weights" in said and "embed_tokens" in said


def test_a_model_without_a_single_number_says_so(broken: ModelSpec) -> None:
    backbone = loaded(broken)
    with torch.no_grad():
        backbone.module.get_input_embeddings().weight[:] = torch.inf
    backbone.module.save_pretrained(broken.source)
    with pytest.raises(FloatingPointError, match=r"broken: the states of a few .* embed_tokens"):
        loaded(broken)


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_a_training_that_never_began_names_row_and_weights(
    broken: ModelSpec, tmp_path: Path, trainable: str
) -> None:
    settings = job(model=broken, trainable=trainable)
    with pytest.raises(FloatingPointError) as raised:
        fit(settings, tmp_path)
    said = str(raised.value)
    assert str(broken.source) in said and f"row {hit(settings.rows)[0]} (nan)" in said
    assert "embed_tokens" in said
    assert list(tmp_path.glob("*.parquet")) == []


def test_adapters_of_a_broken_model_name_row_and_weights(broken: ModelSpec, tmp_path: Path) -> None:
    settings = job(model=broken, trainable="lora")
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        out.mkdir()
    errors = fit_batched_lora([settings, replace(settings, learning_rate=1e-4)], outs)
    for error, out in zip(errors, outs, strict=True):
        assert isinstance(error, FloatingPointError) and "embed_tokens" in str(error)
        assert f"row {hit(settings.test)[0]} (nan)" in str(error)
        assert list(out.iterdir()) == []


def test_a_study_fails_the_cells_of_such_a_model_only(
    write_spec: Callable[..., Path], tmp_path: Path, broken: ModelSpec
) -> None:
    """The letters are in all of its rows; a head and a whole model, and a sound one beside them."""
    folder = Path(str(broken.source))
    backbone = loaded(broken)
    with torch.no_grad():
        backbone.module.get_input_embeddings().weight[:] = torch.inf
    backbone.module.save_pretrained(folder)
    models = {
        "small": {**TINY_MODEL, "config": tiny_config(16)},
        "large": {**TINY_MODEL, "config": tiny_config(32)},
        "broken": {"source": str(folder)},
    }
    pairs = [["small", "large"], ["small", "broken"]]
    spec = write_spec(
        models=models,
        grid={"pair": pairs, "trainable": ["last_layer", "full"], "seed": [0]},
    )
    assert main([str(spec), "--local"]) == 1
    table = pq.read_table(tmp_path / "store/results/tiny.parquet").to_pylist()
    for row in table:
        if row["strong"] == "broken":
            assert row["status"] != "done" and "not finite" in row["error"]
            assert row["student_accuracy"] is None
        else:
            assert row["status"] == "done"
    assert len(table) == 4
    for record in (tmp_path / "store").glob("*/*/record.json"):
        assert "broken" not in record.parent.name
        json.loads(record.read_text(), parse_constant=pytest.fail)  # NaN, Infinity


# Heads on stored features


def held_out(data: HeadData) -> HeldOut:
    count = 12
    soft = labels(data, 9)[:count]
    return HeldOut(soft.argmax(axis=1), soft, True)


def with_validation(data: HeadData) -> HeadData:
    return replace(data, validation_features=data.features[:12], also_scored=data.features[:5])


@pytest.mark.parametrize(("per_row", "classes"), [(2, 2), (1, 3)])
@pytest.mark.parametrize("evaluations", [1, 3])
def test_a_head_that_ends_beyond_float32_fails_alone(
    per_row: int, classes: int, evaluations: int
) -> None:
    """Its losses and gradients are finite, and its last update is not."""
    data = with_validation(problem(per_row, classes))
    settings = {"batch_size": 90, "evaluations": evaluations, "held_out": held_out(data)}
    good = [head_job(data, loss, **settings) for loss in ("forward_ce", "reverse_kl")]
    bad = head_job(data, learning_rate=3e38, **settings)
    first, error, second = fit_heads(data, [good[0], bad, good[1]])
    assert isinstance(error, FloatingPointError), error
    alone = fit_heads(data, good)
    for ours, theirs in zip([first, second], alone, strict=True):
        assert isinstance(ours, FittedHead) and isinstance(theirs, FittedHead)
        assert_same(ours, theirs)
        assert ours.evaluated is not None and theirs.evaluated is not None
        assert ours.evaluated.scores == theirs.evaluated.scores


@pytest.mark.parametrize("value", NOT_FINITE)
def test_features_that_are_not_finite_name_their_row(value: float) -> None:
    data = problem(2, 2)
    data.features[7, 1, 3] = value
    errors = fit_heads(data, [head_job(data), head_job(data, solver="newton")])
    for error in errors:
        assert isinstance(error, FloatingPointError)
        assert "the first of them row r7 (" in str(error)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_test_features_that_are_not_finite_name_their_row(value: float) -> None:
    data = problem(1, 3)
    data.test_features[4] = value
    (error,) = fit_heads(data, [head_job(data)])
    assert isinstance(error, FloatingPointError) and "row t4 (" in str(error)


def test_features_whose_mean_overflows_are_no_zeros() -> None:
    data = problem(2, 2)
    data.features[:] = np.float32(3e38)
    (error,) = fit_heads(data, [head_job(data)])
    assert isinstance(error, FloatingPointError) and "too large" in str(error)


@given(st.integers(0, 5), st.sampled_from(NOT_FINITE), st.sampled_from(range(90)))
def test_any_bad_label_fails_its_own_head_and_changes_no_bit_of_the_others(
    position: int, value: float, row: int
) -> None:
    jobs: list[HeadJob] = [head_job(DATA, labels_seed=n, learning_rate=1e-2) for n in range(6)]
    soft = jobs[position].soft_labels.copy()
    soft[row, 1] = value
    jobs[position] = replace(jobs[position], soft_labels=soft)
    fitted = fit_heads(DATA, jobs)
    for index, (ours, theirs) in enumerate(zip(fitted, SOUND, strict=True)):
        if index == position:
            assert isinstance(ours, FloatingPointError) and "at step " in str(ours)
        else:
            assert_same(ours, theirs)


DATA = problem(2, 2)
SOUND = fit_heads(DATA, [head_job(DATA, labels_seed=n, learning_rate=1e-2) for n in range(6)])


# Files


@pytest.mark.parametrize("value", NOT_FINITE)
def test_soft_labels_are_refused_by_row_when_written_and_when_read(value: float) -> None:
    ids, soft = ["a", "b", "c"], np.full((3, 2), 0.5, dtype=np.float32)
    soft[1, 0] = value
    with pytest.raises(FloatingPointError, match=r"row b \("):
        labels_table(pa.chunked_array([ids]), soft)
    lists = pa.array(soft.tolist(), pa.list_(pa.float32()))
    with pytest.raises(FloatingPointError, match=r"stored soft labels .*row b \("):
        soft_labels_of(pa.table({"row_id": ids, "probs": lists}), ids)
    with pytest.raises(FloatingPointError, match="1 of 3 rows"):
        probs_column(soft)
