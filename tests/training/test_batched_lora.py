"""LoRA cells fused into one model are the cells trained alone by ``fit.fit``, one at a time."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.testing.exports import card, probabilities, stock_outputs, texts_of
from tests.testing.jobs import job, rows
from tests.testing.tiny_models import ARCHITECTURES, tiny_spec
from w2s_ray.capacity.execution import Execution
from w2s_ray.data.tokens import encode
from w2s_ray.models.warm import own_backbone
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora
from w2s_ray.steps.model_export import ModelExport
from w2s_ray.training.batched_lora import fit_batched_lora
from w2s_ray.training.engine import Adam
from w2s_ray.training.fit import fit

pytestmark = pytest.mark.long

SHORT = Lora(rank=4, alpha=6.0)


OWN_BACKBONE = "w2s_ray.training.fit.own_backbone"


def labels(seed, count=27):
    """Random soft labels (n, 2)."""
    probs = np.random.default_rng(seed).uniform(0.05, 0.95, count)
    return np.stack([1 - probs, probs], axis=1).astype(np.float32)


def group(**shared):
    """Cells that differ in all that cells of a group may differ in."""
    base = job(trainable="lora", lora=SHORT, **shared)
    return [
        replace(
            base,
            name=str(index),
            objective=objective,
            learning_rate=rate,
            soft_labels=labels(index % 2),
            adam=replace(base.adam, weight_decay=decay, anchor=anchor),
        )
        for index, (objective, rate, decay, anchor) in enumerate(
            [
                (Objective("forward_ce"), 1e-3, 0.0, 0.0),
                (Objective("reverse_kl", confidence_weight=0.5), 3e-3, 0.5, 0.0),
                (
                    Objective("jeffreys", confidence_weight=0.7, confidence_form="sum"),
                    1e-4,
                    0.0,
                    3.0,
                ),
                (Objective("total_variation", confidence_warmup=0.0), 1e-3, 0.1, 1.0),
            ]
        )
    ]


def together(folder, jobs):
    outs = [folder / f"cell-{index}" for index in range(len(jobs))]
    for out in outs:
        out.mkdir(parents=True)
    return outs, fit_batched_lora(jobs, outs, progress=lambda numbers: None)


def alone(folder, one):
    folder.mkdir(parents=True)
    return folder, fit(one, folder)


def read(folder):
    """curve (steps, columns), probabilities (t, K) and weights of one output."""
    curve = pq.read_table(folder / "curve.parquet").to_pandas()
    probs = np.stack(pq.read_table(folder / "test.parquet")["probs"].to_numpy())
    return curve, probs, load_file(folder / "model.safetensors")


def assert_same(ours, theirs, tolerance=1e-5):
    """A single weight may differ by a twentieth of a step: a step of Adam is of one size whatever
    the gradient, so where that is nearly zero it magnifies the rounding. All of them may not."""
    (curve, probs, state), (other_curve, other_probs, other_state) = read(ours), read(theirs)
    assert list(curve.columns) == list(other_curve.columns)
    np.testing.assert_allclose(curve, other_curve, rtol=tolerance, atol=tolerance)
    # One-sided differences would betray another objective, not rounding.
    assert abs((curve["loss"] - other_curve["loss"]).mean()) < tolerance / 5
    np.testing.assert_allclose(probs, other_probs, rtol=0, atol=tolerance)
    assert pq.read_schema(ours / "test.parquet") == pq.read_schema(theirs / "test.parquet")
    assert list(state) == list(other_state)
    apart = np.concatenate([(state[name] - other_state[name]).ravel() for name in state])
    assert np.abs(apart).max() < max(tolerance, 0.05 * curve["learning_rate"].max())
    assert np.abs(apart).mean() < tolerance / 10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_of_a_mixed_group_is_what_it_is_alone(tmp_path, architecture):
    jobs = group(model=tiny_spec(architecture, tokenizer="bytes"))
    outs, results = together(tmp_path, jobs)
    for index, (one, out, metrics) in enumerate(zip(jobs, outs, results, strict=True)):
        folder, expected = alone(tmp_path / f"alone-{index}", one)
        assert_same(out, folder)
        assert metrics.keys() == {*expected, "fused"}
        assert metrics["fused"] == 4
        for name in ("tokens", "steps", "truncated_rows", "truncated_test_rows", "shares_prompts"):
            assert metrics[name] == expected[name]
        assert metrics["final_loss"] == pytest.approx(expected["final_loss"], abs=1e-5)


@pytest.mark.parametrize(
    "shared",
    [
        {"per_row": 1},  # with a threshold buffer a cell
        {"adam": Adam((0.8, 0.95), 1e-6, clip_norm=0.05)},
        {"schedule": "constant", "adam": Adam()},
        {"execution": Execution(micro_batch_tokens=200)},
    ],
    ids=["texts", "clipped", "constant", "micro-batches"],
)
def test_settings_that_cells_share_mean_what_they_mean_alone(tmp_path, shared):
    jobs = group(**shared)
    outs, _ = together(tmp_path, jobs)
    for index, (one, out) in enumerate(zip(jobs, outs, strict=True)):
        assert_same(out, alone(tmp_path / f"alone-{index}", one)[0])


def test_texts_under_confidence_have_thresholds_of_their_own(tmp_path):
    """Two cells that differ in nothing but the prior of their labels, hence in the threshold."""
    base = job(per_row=1, trainable="lora", objective=Objective(confidence_weight=1.0),
               learning_rate=3e-3)  # fmt: skip
    jobs = []
    for prior in (0.2, 0.8):
        soft_labels = np.tile(np.float32([1 - prior, prior]), (base.rows.num_rows, 1))
        jobs.append(replace(base, soft_labels=soft_labels))
    outs, _ = together(tmp_path, jobs)
    for index, (one, out) in enumerate(zip(jobs, outs, strict=True)):
        assert_same(out, alone(tmp_path / f"alone-{index}", one)[0])


def test_three_classes(tmp_path):
    base = job(per_row=1, trainable="lora", num_classes=3, objective=Objective("reverse_kl"))
    probs = np.random.default_rng(0).dirichlet(np.ones(3), base.rows.num_rows)
    base = replace(base, soft_labels=probs.astype(np.float32))
    jobs = [base, replace(base, objective=Objective(confidence_weight=0.5))]
    outs, _ = together(tmp_path, jobs)
    for index, (one, out) in enumerate(zip(jobs, outs, strict=True)):
        assert_same(out, alone(tmp_path / f"alone-{index}", one)[0])


def test_the_other_cells_do_not_matter(tmp_path):
    jobs = group()
    outs, _ = together(tmp_path / "all", jobs)
    turned, _ = together(tmp_path / "turned", jobs[::-1])
    for index, (out, other) in enumerate(zip(outs, turned[::-1], strict=True)):
        assert_same(out, other)
        (single,), (metrics,) = together(tmp_path / f"single-{index}", [jobs[index]])
        assert_same(out, single)
        assert metrics["fused"] == 1


def test_cells_that_are_alike_get_the_same_numbers(tmp_path):
    one = group()[1]
    (first, second), _ = together(tmp_path, [one, one])
    assert_same(first, second)


@pytest.mark.parametrize("how", ["rate", "label", "gradient"])
def test_a_cell_that_diverges_says_when_and_leaves_the_others_alone(tmp_path, how):
    good = group(adam=Adam())
    bad = replace(good[1], learning_rate=1e30)
    if how != "rate":
        probs = np.full((27, 2), 0.5, dtype=np.float32)
        probs[20] = {"label": np.nan, "gradient": 1e30}[how]
        bad = replace(good[0], soft_labels=probs)
    with pytest.raises(FloatingPointError) as raised:
        alone(tmp_path / "alone", bad)
    outs, results = together(tmp_path / "mixed", [good[0], bad, *good[1:]])
    assert isinstance(results[1], FloatingPointError)
    assert str(results[1]).split(" at ") == str(raised.value).split(" at ")
    assert list(outs[1].iterdir()) == []
    expected, _ = together(tmp_path / "good", good)
    for out, other in zip([outs[0], *outs[2:]], expected, strict=True):
        assert_same(out, other)


def test_a_group_in_which_every_cell_diverges_gives_every_reason(tmp_path):
    bad = replace(group(adam=Adam())[1], learning_rate=1e30)
    outs, results = together(tmp_path, [bad, bad])
    assert [type(error) for error in results] == [FloatingPointError] * 2
    assert not any(list(out.iterdir()) for out in outs)


def test_an_objective_that_the_classes_forbid_fails_by_itself(tmp_path):
    jobs = group()[:2]
    refused = replace(jobs[0], objective=Objective(label_clip=0.5))
    outs, (error, metrics) = together(tmp_path / "mixed", [refused, jobs[1]])
    assert isinstance(error, ValueError)
    assert "label_clip 0.5" in str(error)
    assert metrics["steps"] == 8
    assert_same(outs[1], alone(tmp_path / "alone", jobs[1])[0])


@pytest.mark.parametrize("tokens", [1, 300])
def test_micro_batches_do_not_change_the_numbers(tmp_path, tokens):
    whole, _ = together(tmp_path / "whole", group())
    cut, _ = together(tmp_path / "cut", group(execution=Execution(micro_batch_tokens=tokens)))
    for out, other in zip(cut, whole, strict=True):
        assert_same(out, other)


def test_recomputed_blocks_do_not_change_the_numbers(tmp_path, monkeypatch):
    runs = {}

    def counted(model, precision):
        backbone = own_backbone(model, precision)
        block = next(m for m in backbone.module.modules() if hasattr(m, "mlp"))
        block.mlp.register_forward_pre_hook(lambda *_: runs.update({step: runs.get(step, 0) + 1}))
        return backbone

    monkeypatch.setattr(OWN_BACKBONE, counted)
    step = "once"
    once, _ = together(tmp_path / "once", group())
    step = "again"
    recomputing = group(execution=Execution(activation_checkpointing=True))
    again, _ = together(tmp_path / "again", recomputing)
    assert runs["again"] > 1.5 * runs["once"]
    for out, other in zip(again, once, strict=True):
        assert_same(out, other)


def test_backbones_that_do_not_share_prompts_are_trained_together_too(tmp_path, monkeypatch):
    def separate(model, precision):
        backbone = own_backbone(model, precision)
        backbone.module.config._attn_implementation = "sdpa"
        return replace(backbone, shares_prompts=False)

    monkeypatch.setattr(OWN_BACKBONE, separate)
    jobs = group()
    outs, results = together(tmp_path, jobs)
    assert not results[0]["shares_prompts"]
    for index, (one, out) in enumerate(zip(jobs, outs, strict=True)):
        assert_same(out, alone(tmp_path / f"alone-{index}", one)[0])


def test_a_bf16_backbone_gives_nearly_the_same(tmp_path):
    """States of 8 bits are now and then rounded the other way, and Adam follows the sign of even
    the smallest gradient: two digits remain of a loss."""
    jobs = group(precision="bf16")
    outs, _ = together(tmp_path, jobs)
    for index, (one, out) in enumerate(zip(jobs, outs, strict=True)):
        folder, _ = alone(tmp_path / f"alone-{index}", one)
        (curve, probs, state), (other, other_probs, other_state) = read(out), read(folder)
        np.testing.assert_allclose(curve["loss"], other["loss"], atol=0.02)
        np.testing.assert_allclose(probs, other_probs, atol=0.02)
        assert {name: t.dtype for name, t in state.items()} == {
            name: t.dtype for name, t in other_state.items()
        }


def test_weights_are_kept_where_a_job_wants_them(tmp_path):
    jobs = group()[:2]
    outs, _ = together(tmp_path, [replace(jobs[0], keep_weights=False), jobs[1]])
    kept = [(out / "model.safetensors").exists() for out in outs]
    assert kept == [False, True]


def test_progress_goes_over_the_steps_of_the_group(tmp_path):
    jobs = group()[:2]
    outs = [tmp_path / name for name in "ab"]
    for out in outs:
        out.mkdir()
    seen = []
    fit_batched_lora(jobs, outs, progress=seen.append)
    assert [numbers["step"] for numbers in seen] == list(range(1, 9))
    assert all(numbers["steps"] == 8 and np.isfinite(numbers["loss"]) for numbers in seen)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"lora": Lora(rank=5)}, "lora"),
        ({"batch_size": 9, "epochs": 3}, "epochs, batch_size"),
        ({"test": rows(9, seed=1)}, "test"),
        ({"rows": pa.concat_tables([rows(27).slice(1), rows(27).slice(0, 1)])}, "rows"),
    ],
)
def test_jobs_that_differ_in_what_they_must_share_are_refused(tmp_path, change, named):
    jobs = group()[:1]
    with pytest.raises(ValueError, match=f"differ in {named}$"):
        fit_batched_lora([jobs[0], replace(jobs[0], **change)], [tmp_path, tmp_path])
    with pytest.raises(ValueError, match="trainable is full, expected lora"):
        fit_batched_lora([job()], [tmp_path])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_cell_is_exported_with_its_own_adapters(tmp_path, architecture):
    jobs = group(model=tiny_spec(architecture))
    jobs[1:] = [replace(one, export=ModelExport(card(name=f"cell {one.name}"))) for one in jobs[1:]]
    outs, _ = together(tmp_path, jobs)
    assert not (outs[0] / "export").exists()
    first = jobs[0]
    tokenizer = own_backbone(first.model, first.precision).tokenizer
    texts = texts_of(encode(first.test, tokenizer, first.max_length_tokens))
    for one, out in zip(jobs[1:], outs[1:], strict=True):
        exported = probabilities(stock_outputs(out / "export", texts))
        stored = np.stack(pq.read_table(out / "test.parquet")["probs"].to_numpy())
        np.testing.assert_allclose(exported.numpy(), stored, atol=1e-5)
        text = (out / "export" / "README.md").read_text()
        assert f"# cell {one.name}" in text
        assert "test accuracy" in text
