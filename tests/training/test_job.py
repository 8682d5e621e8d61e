"""A training job's numbers do not depend on how batches are cut, and are those of plain torch."""

import pickle
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.testing.exports import card
from tests.testing.jobs import MODEL, job, labelled_rows
from tests.testing.steps import training
from w2s_ray.capacity.execution import Execution
from w2s_ray.data.batches import epoch_order
from w2s_ray.data.labels import one_hot
from w2s_ray.data.tokens import encode
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.inference import scorer_logits
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.split import split_over
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.objectives.objective import GROUND_TRUTH
from w2s_ray.spec.schema import Lora
from w2s_ray.steps.model_export import ModelExport
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training.engine import Adam, TorchEngine
from w2s_ray.training.fit import fit, trained_scorer
from w2s_ray.training.job import TrainJob, memory_stream
from w2s_ray.training.loop import learning_rate_at, train
from w2s_ray.training.trained_rows import TrainedRows
from w2s_ray.training.validation import HeldOut


def curve(job, out):
    out.mkdir()
    fit(job, out)
    return np.array(pq.read_table(out / "curve.parquet")["loss"])


def pieces(job):
    """Micro-batches of each optimizer step."""
    tokens = encode(job.rows, load_tokenizer(job.model), job.max_length_tokens)
    return [len(step) for step in memory_stream(job, tokens)]


@pytest.mark.parametrize("per_row", [1, 2])
@pytest.mark.parametrize("most", [2, 5, 8])  # 8 is a row by itself
def test_micro_batches_do_not_change_the_numbers(tmp_path, per_row, most):
    whole_job = job(per_row=per_row)
    whole = curve(whole_job, tmp_path / "whole")
    assert set(pieces(whole_job)) == {1}
    budget = {1: {2: 180, 5: 60, 8: 1}, 2: {2: 360, 5: 160, 8: 1}}[per_row][most]
    cut_job = job(per_row=per_row, execution=Execution(micro_batch_tokens=budget))
    counts = pieces(cut_job)
    assert max(counts) == most and len(set(counts)) > 1  # the last batch of an epoch is short
    residual = curve(cut_job, tmp_path / "cut") - whole
    assert len(whole) == 8
    np.testing.assert_allclose(residual, 0, atol=1e-5)
    assert abs(residual.mean()) < 2e-6
    probs = [
        np.stack(pq.read_table(tmp_path / name / "test.parquet")["probs"].to_numpy())
        for name in ("whole", "cut")
    ]
    np.testing.assert_allclose(*probs, atol=1e-5)


def test_the_order_of_the_table_does_not_matter(tmp_path):
    straight = job()
    order = np.random.default_rng(5).permutation(27)
    shuffled = replace(
        straight, rows=straight.rows.take(order), soft_labels=straight.soft_labels[order]
    )
    np.testing.assert_allclose(
        curve(straight, tmp_path / "a"), curve(shuffled, tmp_path / "b"), atol=1e-6
    )


def test_the_engine_is_plain_adam_with_a_cosine(tmp_path):
    """The same training written with torch alone: one text at a time, Adam, CosineAnnealing."""
    settings = job(objective=GROUND_TRUTH, adam=Adam())
    settings = replace(settings, soft_labels=one_hot(settings.rows["label"].to_numpy(), 2))
    ours = curve(settings, tmp_path / "ours")

    backbone = load_backbone(MODEL, "fp32")
    scorer = Scorer(backbone.module, backbone.hidden_size, 2, 2, seed=settings.seed)
    optimizer = torch.optim.Adam(scorer.parameters(), lr=settings.learning_rate)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.total_steps)
    tokens = encode(settings.rows, backbone.tokenizer, 64)
    labels = torch.tensor(settings.rows["label"].to_pylist())
    theirs = []
    for epoch in range(2):
        order = epoch_order(tokens.row_ids, settings.seed, epoch)
        for batch in np.array_split(order, range(8, 27, 8)):
            texts = []
            for i in batch:
                row = tokens.ids[tokens.starts[i] :][: tokens.row_lengths[i]]
                prompt, *answers = np.split(row, np.cumsum(tokens.segments[i])[:-1])
                texts += [np.concatenate([prompt, answer]) for answer in answers]
            rewards = torch.stack(
                [
                    scorer.backbone(torch.tensor(text[None].astype(np.int64)))[0][0, -1]
                    @ scorer.head.weight[0]
                    for text in texts
                ]
            ).view(-1, 2)
            margin = rewards[:, 0] - rewards[:, 1]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                margin, labels[batch].float()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            theirs.append(loss.item())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_job_travels_by_pickle_with_its_storage_and_its_export(tmp_path):
    store = Store.open(tmp_path / "store")
    sent = job(
        checkpoints=Checkpoints(store, "abc"),
        execution=Execution(checkpoint_steps=3),
        export=ModelExport(card(name="a cell")),
    )
    received = pickle.loads(pickle.dumps(sent))
    np.testing.assert_array_equal(curve(received, tmp_path / "a"), curve(job(), tmp_path / "b"))
    assert Checkpoints(store, "abc").latest().update == 8
    assert "# a cell" in (tmp_path / "a/export/README.md").read_text()


def test_cosine_falls_to_zero_and_constant_stays():
    rates = [learning_rate_at(step, 10, 2.0, "cosine") for step in range(11)]
    assert rates[0] == 2.0 and rates[5] == pytest.approx(1.0) and rates[10] == pytest.approx(0.0)
    assert sorted(rates, reverse=True) == rates
    assert learning_rate_at(7, 10, 2.0, "constant") == 2.0


def test_bf16_weights_remember_updates_below_their_resolution():
    weight = torch.nn.Linear(64, 1, bias=False, dtype=torch.bfloat16)
    torch.nn.init.constant_(weight.weight, 1.0)  # the next bf16 numbers are 0.0039 and 0.0078 away
    engine = TorchEngine(weight, list(weight.parameters()), Adam())
    for _ in range(1000):
        engine.backward(weight(torch.ones(1, 64, dtype=torch.bfloat16)).float().sum(), last=True)
        engine.step(1e-5)
    torch.testing.assert_close(
        dict(engine.whole(["weight"]))["weight"], torch.full((1, 64), 0.99), atol=1e-4, rtol=0
    )
    assert weight.weight.float().max() < 0.9931


def test_graphs_of_earlier_micro_batches_are_freed():
    settings = job(execution=Execution(micro_batch_tokens=1))
    backbone = load_backbone(MODEL, "fp32")
    scorer = Scorer(backbone.module, backbone.hidden_size, 2, 2, seed=0)
    engine = TorchEngine(scorer, list(scorer.parameters()), Adam())
    alive, most = [], 0
    forward = engine.logits

    def watched(inputs):
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        logits = forward(inputs)
        alive.append(weakref.ref(logits))
        return logits

    engine.logits = watched
    tokens = encode(settings.rows, backbone.tokenizer, 64)
    train(
        engine,
        memory_stream(settings, tokens),
        settings.objective,
        total_steps=settings.total_steps,
        learning_rate=1e-3,
    )
    assert len(alive) == 54 and most <= 1


def test_a_loss_that_is_not_finite_ends_the_step(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step \d"):
        curve(job(learning_rate=1e30, adam=Adam()), tmp_path / "out")


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("trainable", ["full", "lora", "last_layer"])
def test_stored_weights_give_the_stored_predictions(tmp_path, monkeypatch, trainable, gpus):
    """Also where the model is split: over CPUs, in place of GPUs."""
    if gpus > 1:
        over = partial(split_over, devices=[torch.device("cpu")] * gpus)
        monkeypatch.setattr("w2s_ray.training.fit.split", lambda backbone, gpus: over(backbone))
    settings = job(trainable=trainable)
    curve(settings, tmp_path / "out")
    how = training(trainable, lora=Lora() if trainable == "lora" else None)
    scorer, tokenizer = trained_scorer(MODEL, how, tmp_path / "out", (2, 2), gpus)
    logits = scorer_logits(scorer, encode(settings.test, tokenizer, 64))
    stored = np.stack(pq.read_table(tmp_path / "out/test.parquet")["probs"].to_numpy())
    probs = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    np.testing.assert_allclose(probs, stored, atol=1e-6)
    names = set(load_file(tmp_path / "out/model.safetensors"))
    assert "head.weight" in names and (trainable == "last_layer") == (len(names) == 1)


def with_everything(longer: int = 1) -> TrainJob:
    """A job with rows of every use, their texts so many times longer."""
    tables = [labelled_rows(count, seed=seed) for seed, count in enumerate((27, 10, 6))]
    texts = [
        table.set_column(1, "prompt", [[text * longer for text in table["prompt"].to_pylist()]])
        for table, _ in tables
    ]
    labels = HeldOut(texts[2]["label"].to_numpy(), tables[2][1], True)
    return job(
        rows=texts[0],
        test=texts[1],
        validation=texts[2],
        held_out=labels,
        evaluations=3,
        scored=TrainedRows(texts[0], tables[0][1]),
    )


def test_what_workers_are_sent_does_not_grow_with_the_texts() -> None:
    short, long = (pickle.dumps(with_everything(times).without_texts()) for times in (1, 1000))
    assert len(short) == len(long) < len(pickle.dumps(with_everything()))


def test_a_job_without_texts_trains_on_tokens_as_one_with_texts(tmp_path: Path) -> None:
    whole = with_everything()
    tokenizer = load_tokenizer(whole.model)
    tokens = whole.encoded(whole.rows, tokenizer)
    bare = whole.without_texts()
    for out in ("texts", "tokens"):
        (tmp_path / out).mkdir()
    metrics = fit(whole, tmp_path / "texts")
    others = fit(
        bare,
        tmp_path / "tokens",
        stream=partial(memory_stream, bare, tokens),
        scored=whole.scored_tokens(tokenizer),
    )
    assert metrics["final_loss"] == others["final_loss"]
    files = sorted(path.name for path in (tmp_path / "texts").iterdir())
    assert {"train.parquet", "validation.parquet", "test.parquet"} < set(files)
    for name in files:
        assert (tmp_path / "texts" / name).read_bytes() == (tmp_path / "tokens" / name).read_bytes()
