"""A model that is evaluated while it trains: one training gives what every shorter one would."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.heads import assert_same, mixture, problem
from tests.testing.heads import job as head_job
from tests.testing.jobs import job, labelled_rows
from w2s_ray.contents import read_array
from w2s_ray.objectives.objective import Objective
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.step_logits import step_probs
from w2s_ray.training.batched_lora import fit_batched_lora
from w2s_ray.training.fit import fit
from w2s_ray.training.heads import fit_heads
from w2s_ray.training.validation import HeldOut, evaluated_contents, evaluated_steps, scores

SHAPES = [(2, 2), (1, 2), (1, 5)]  # texts a row, classes
shapes = pytest.mark.parametrize(("per_row", "classes"), SHAPES)


@given(st.integers(1, 3000), st.integers(1, 40))
def test_steps_are_distinct_ascending_log_spaced_and_end_with_the_last(total, count):
    steps = evaluated_steps(total, count)
    assert len(steps) == min(total, count)
    assert list(steps) == sorted(set(steps)) and steps[-1] == total and steps[0] >= 1
    if count > 1:
        assert steps[0] == 1


def test_steps_of_a_common_case():
    assert evaluated_steps(94, 6) == (1, 2, 6, 15, 38, 94)
    assert evaluated_steps(4, 3) == (1, 2, 4)
    assert evaluated_steps(94, 1) == (94,)


def held_out(classes, rows=11, *, weak=True, seed=5):
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.ones(classes), rows).astype(np.float32)
    soft[0] = 1.0 / classes  # a tie
    return HeldOut(rng.integers(0, classes, rows), soft, weak)


def with_validation(data, rows=11):
    rng = np.random.default_rng(7)
    features = rng.normal(size=(rows, *data.features.shape[1:])).astype(np.float32)
    features *= np.abs(data.features).mean(axis=(0, 1))
    return replace(data, validation_features=features)


@shapes
def test_the_weights_of_an_evaluated_step_are_those_of_a_run_stopped_there(per_row, classes):
    data = with_validation(problem(per_row, classes, rows=16))
    constant = head_job(
        data, "reverse_kl", epochs=4, schedule="constant", held_out=held_out(classes)
    )
    (whole,) = fit_heads(data, [replace(constant, evaluations=3)])
    assert whole.evaluated.steps == (1, 2, 4)
    for index, step in enumerate(whole.evaluated.steps):
        (stopped,) = fit_heads(data, [replace(constant, epochs=step)])
        for name, values in stopped.evaluated.scores.items():
            assert whole.evaluated.scores[name][index] == values[0], name
        if step < 4:
            logits = whole.evaluated.test_logits[index]
            expected = stopped.test_logits[:, 1] if per_row == 2 else stopped.test_logits
            np.testing.assert_array_equal(logits, expected)
        else:
            assert_same(whole, stopped)


@pytest.mark.long
@shapes
def test_which_heads_are_fused_changes_no_bit_of_what_is_evaluated(per_row, classes):
    data = with_validation(problem(per_row, classes))
    labels = [held_out(classes, seed=seed) for seed in range(3)]
    jobs = [
        replace(one, evaluations=1 + 3 * (index % 2), held_out=labels[index % 3])
        for index, one in enumerate(mixture(data, 2))
    ]
    together = fit_heads(data, jobs)
    plain = fit_heads(data, [replace(one, evaluations=1, held_out=None) for one in jobs])
    for index in range(0, len(jobs), 5):
        (alone,) = fit_heads(data, [jobs[index]])
        assert_same(together[index], alone)
        assert_same(together[index], plain[index])  # nor does the evaluation change the training
        assert together[index].evaluated.steps == alone.evaluated.steps
        assert together[index].evaluated.scores == alone.evaluated.scores
        np.testing.assert_array_equal(
            together[index].evaluated.test_logits, alone.evaluated.test_logits
        )


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weak", [True, False])
def test_scores_are_those_of_a_slow_implementation(classes, weak):
    labels = held_out(classes, weak=weak)
    logits = np.random.default_rng(1).normal(size=(3, 11, classes)).astype(np.float32)
    logits[1, 3] = 0.25  # a tie of all classes
    found = scores(logits, labels, Objective("reverse_ce", confidence_weight=0.5))
    for step in range(3):
        ce, agree, right = [], [], []
        for z, w, y in zip(logits[step], labels.soft_labels, labels.labels, strict=True):
            s = np.exp(z.astype(float)) / np.exp(z.astype(float)).sum()
            ce.append(-sum(float(wk) * np.log(sk) for wk, sk in zip(w, s, strict=True)))
            ours = {k for k in range(classes) if z[k] == z.max()}
            theirs = {k for k in range(classes) if w[k] == w.max()}
            agree.append(len(ours & theirs) / (len(ours) * len(theirs)))
            right.append((y in ours) / len(ours))
        own = Objective("reverse_ce")(
            torch.from_numpy(logits[step]), torch.from_numpy(labels.soft_labels)
        )
        assert found["accuracy"][step] == pytest.approx(np.mean(right))
        assert found["own_loss"][step] == pytest.approx(float(own.mean()), rel=1e-5)
        if weak:
            assert found["weak_ce"][step] == pytest.approx(np.mean(ce))
            assert found["weak_agreement"][step] == pytest.approx(np.mean(agree))
    if not weak:
        assert found["weak_ce"] is found["weak_agreement"] is None


@shapes
def test_logits_are_stored_exactly(per_row, classes):
    data = with_validation(problem(per_row, classes))
    one = head_job(data, epochs=2, evaluations=3, held_out=held_out(classes))
    (fitted,) = fit_heads(data, [one])
    contents = evaluated_contents(fitted.evaluated)
    stored = contents["step_logits.npy"]
    assert stored.dtype == np.float32 and stored.ndim == (2 if per_row == 2 else 3)
    logits = fitted.evaluated.test_logits[1].astype(float)
    logits = np.stack([0 * logits, logits], axis=1) if logits.ndim == 1 else logits
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(step_probs(stored, 1), expected, rtol=1e-12)
    assert contents["validation.parquet"]["step"].to_pylist() == list(fitted.evaluated.steps)


def model_job(**changes):
    table, soft = labelled_rows(9, changes.get("per_row", 2), seed=4)
    return job(
        **{
            "validation": table,
            "held_out": HeldOut(table["label"].to_numpy(), soft, True),
            "evaluations": 3,
            "schedule": "constant",
            "objective": Objective("reverse_kl"),
            **changes,
        }
    )


def outcome(folder):
    table = pq.read_table(folder / "validation.parquet")
    return {name: np.array(table[name].to_pylist(), dtype=float) for name in table.column_names}


def first_rows(whole, count):
    return replace(whole, rows=whole.rows[:count], soft_labels=whole.soft_labels[:count])


@pytest.mark.parametrize(("trainable", "per_row"), [("full", 2), ("lora", 1)])
def test_an_evaluated_step_of_a_model_is_a_run_stopped_there(tmp_path, trainable, per_row):
    whole = first_rows(model_job(trainable=trainable, per_row=per_row, epochs=4), 8)
    assert whole.total_steps == 4
    for name, one in (("whole", whole), ("stopped", replace(whole, epochs=2))):
        (tmp_path / name).mkdir()
        fit(one, tmp_path / name)
    ours, theirs = outcome(tmp_path / "whole"), outcome(tmp_path / "stopped")
    assert list(ours["step"]) == [1, 2, 4] and list(theirs["step"]) == [1, 2]
    for name in ours:
        np.testing.assert_allclose(ours[name][:2], theirs[name], rtol=1e-5, err_msg=name)
    probs = step_probs(read_array(tmp_path / "whole" / "step_logits.npy"), 1)
    stopped = pq.read_table(tmp_path / "stopped" / "test.parquet")["probs"].to_pylist()
    np.testing.assert_allclose(probs, stopped, rtol=1e-5)


def test_evaluating_changes_nothing_of_the_training(tmp_path):
    for name, changes in (("with", {}), ("without", {"validation": None, "held_out": None})):
        (tmp_path / name).mkdir()
        fit(model_job(**changes), tmp_path / name)
    for file in ("test.parquet", "curve.parquet", "model.safetensors"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()


def test_a_resumed_run_has_what_was_evaluated_before_the_interruption(tmp_path):
    class Stopped(Exception):
        pass

    def stop_after(step):
        def progress(numbers):
            if numbers["step"] == step:
                raise Stopped

        return progress

    one = model_job(epochs=2)  # 8 steps, of which 1, 3 and 8 are evaluated
    one = replace(one, execution=replace(one.execution, checkpoint_steps=2))
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    fit(one, tmp_path / "straight")
    store = Store.open(str(tmp_path / "store"))
    kept = replace(one, checkpoints=Checkpoints(store, "ab"))
    with pytest.raises(Stopped):
        fit(kept, tmp_path / "resumed", progress=stop_after(6))
    metrics = fit(kept, tmp_path / "resumed")
    assert metrics["checkpoints"]["resumed_at"] == 4
    for file in ("validation.parquet", "step_logits.npy", "test.parquet", "curve.parquet"):
        straight, resumed = (tmp_path / name / file for name in ("straight", "resumed"))
        assert straight.read_bytes() == resumed.read_bytes(), file


def test_adapters_trained_together_are_evaluated_as_each_alone(tmp_path):
    base = model_job(trainable="lora", keep_weights=False)
    jobs = [base, replace(base, learning_rate=1e-2), replace(base, objective=Objective())]
    folders = [tmp_path / str(index) for index in range(3)]
    for folder in (*folders, tmp_path / "alone"):
        folder.mkdir()
    fit_batched_lora(jobs, folders)
    for one, folder in zip(jobs, folders, strict=True):
        fit(one, tmp_path / "alone")
        alone, fused = outcome(tmp_path / "alone"), outcome(folder)
        for name in alone:
            np.testing.assert_allclose(fused[name], alone[name], rtol=1e-4, atol=1e-6, err_msg=name)
        logits = [np.load(place / "step_logits.npy") for place in (tmp_path / "alone", folder)]
        np.testing.assert_allclose(*logits, atol=1e-5)
