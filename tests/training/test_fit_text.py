"""Training on text: however it is cut or interrupted the same, and as transformers computes it."""

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.testing.jobs import MODEL
from tests.testing.text_jobs import EVERY, ROWS, job, lora
from w2s_ray.capacity.execution import Execution
from w2s_ray.data.batches import epoch_order
from w2s_ray.data.completions import completion_tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.log_ratios import token_log_probs
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training import oom_retry
from w2s_ray.training.early_end import ask
from w2s_ray.training.engine import Adam, TorchEngine
from w2s_ray.training.fit_text import fit_text, load_text
from w2s_ray.training.loop import learning_rate_at
from w2s_ray.training.text_batches import text_rows, text_stream
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo
from w2s_ray.training.text_losses import module_of

every_objective = pytest.mark.parametrize("objective", EVERY, ids=["sft", "dpo", "wspo"])


def run(settings: TextJob, out: Path, **options: Any) -> dict[str, Any]:
    out.mkdir()
    return fit_text(settings, out, **options)


def curve(out: Path) -> np.ndarray[Any, Any]:
    return np.array(pq.read_table(out / "curve.parquet")["loss"])


@every_objective
def test_micro_batches_do_not_change_the_numbers(tmp_path: Path, objective: Any) -> None:
    run(job(objective), tmp_path / "whole")
    metrics = run(job(objective, execution=Execution(micro_batch_tokens=60)), tmp_path / "cut")
    assert metrics["micro_batch_tokens"] == 60
    assert len(curve(tmp_path / "whole")) == 6
    np.testing.assert_allclose(curve(tmp_path / "cut"), curve(tmp_path / "whole"), atol=1e-5)


@pytest.mark.long
@every_objective
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_a_resumed_run_is_the_run_that_was_never_interrupted(
    tmp_path: Path, objective: Any, adapted: bool
) -> None:
    """It is interrupted after an update of which there is no checkpoint, or asked to end (lora)."""
    settings = job(objective, execution=Execution(micro_batch_tokens=60, checkpoint_steps=4))
    settings = lora(settings) if adapted else settings
    checkpoints = Checkpoints(Store.open(str(tmp_path / "store")), "k" * 8)
    kept: dict[str, Any] = {}

    def keep(name: str, make: Any) -> Any:
        if name not in kept:
            kept[name] = make()
        return kept[name]

    def stop(numbers: dict[str, Any]) -> None:
        if numbers["step"] == 5 and not (adapted and ask()):
            raise KeyboardInterrupt

    straight = run(settings, tmp_path / "straight")
    interrupted = replace(settings, checkpoints=checkpoints)
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path / "first", progress=stop, keep=keep)
    assert list(kept) == ([] if isinstance(objective, Sft) else ["reference"])
    made = {name: lambda: pytest.fail("computed again") for name in kept}
    resumed = run(
        interrupted, tmp_path / "second", keep=lambda name, _: kept.get(name, made.get(name))
    )
    assert resumed["checkpoints"]["resumed_at"] == (6 if adapted else 4)
    assert curve(tmp_path / "second").tolist() == curve(tmp_path / "straight").tolist()
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("straight", "second")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    same = ("preference_accuracy", "mean_margin", "final_loss")
    assert [straight.get(m) for m in same] == [resumed.get(m) for m in same]


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(Store.open(str(tmp_path / "store")), "k" * 8)
    settings = job(execution=Execution(checkpoint_steps=2), checkpoints=checkpoints)
    run(settings, tmp_path / "first")
    other = replace(settings, answers=(("another",), *settings.answers[1:]))
    with pytest.raises(ValueError, match="another data"):
        run(other, tmp_path / "second")


def test_fine_tuning_is_transformers_own_loss_over_the_tokens_of_answers(tmp_path: Path) -> None:
    """The first batch, padded, with labels of −100 on prompts and padding."""
    settings = job()
    run(settings, tmp_path / "out")
    causal = load_causal(MODEL, "fp32", device="cpu")
    batch = epoch_order(settings.row_ids, settings.seed, 0)[: settings.batch_size]
    ids, labels = [], []
    for row in batch:
        prompt, answer = (
            causal.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (settings.prompts[row], settings.answers[row][0])
        )
        answer = [*answer, causal.end_ids[0]]
        ids.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    module: Any = causal.module
    theirs = module(
        input_ids=pad(ids, batch_first=True),
        attention_mask=pad([torch.ones_like(i) for i in ids], batch_first=True),
        labels=pad(labels, batch_first=True, padding_value=-100),
    ).loss
    assert curve(tmp_path / "out")[0] == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_dpo_begins_at_log_2_and_learns_to_order_its_pairs(tmp_path: Path, adapted: bool) -> None:
    settings = job(Dpo(0.5), epochs=12)
    metrics = run(lora(settings) if adapted else settings, tmp_path / "out")
    assert metrics["first_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert metrics["final_loss"] < 0.5
    assert metrics["preference_accuracy"] > 0.9 and metrics["mean_margin"] > 0.5
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    whole = {name for name, _ in load_causal(MODEL, "fp32").module.named_parameters()}
    assert all("lora_" in name for name in names) if adapted else names == whole


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_an_earlier_state_is_the_same_from_a_file_and_by_value(
    tmp_path: Path, adapted: bool
) -> None:
    """Workers on other machines see no file of this one."""
    settings = lora(job(Dpo(0.5))) if adapted else job(Dpo(0.5))
    run(settings, tmp_path / "before")
    file = tmp_path / "before" / "model.safetensors"
    run(replace(settings, initial=file), tmp_path / "file")
    run(replace(settings, initial=partial(load_file, file)), tmp_path / "value")
    assert curve(tmp_path / "file").tolist() == curve(tmp_path / "value").tolist()
    assert curve(tmp_path / "file").tolist() != curve(tmp_path / "before").tolist()


def test_the_metrics_are_those_of_the_written_weights(tmp_path: Path) -> None:
    settings = job(Dpo(0.5), epochs=4)
    metrics = run(settings, tmp_path / "out")
    trained = load_text(replace(settings, initial=tmp_path / "out" / "model.safetensors"))
    initial = load_text(settings)
    tokens = settings.encoded(initial.causal.tokenizer, initial.causal.end_ids[0])
    module = module_of(settings.objective, initial.scorer)
    engine = TorchEngine(module, initial.parameters, settings.adam)
    rows = text_rows(settings, tokens, engine, initial.scorer, lambda name, make: make())
    sums = [
        np.array([[v.sum()] for v in token_log_probs(model.scorer, one)])
        for one in (rows.tokens,)
        for model in (trained, initial)
    ]
    assert not np.allclose(sums[0], sums[1])
    (batch,) = next(text_stream(replace(settings, batch_size=ROWS), rows))
    reference = batch.inputs["reference"]
    with torch.no_grad():
        now = trained.scorer(batch.inputs["input_ids"], batch.inputs["segments"])
    rewards = 0.5 * (now - reference)
    margin = (rewards[:, 0] - rewards[:, 1]).mean().item()
    assert metrics["mean_margin"] == pytest.approx(margin, abs=1e-4)


def test_a_step_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    for kind in (lambda settings: settings, lora):
        out = tmp_path / kind.__name__.strip("<>")
        first = run(kind(job(epochs=6)), out)
        second = run(kind(job(epochs=6, initial=out / "model.safetensors")), Path(f"{out}-second"))
        assert second["first_loss"] < first["first_loss"] - 0.1


def test_wspo_against_the_own_log_ratios_has_no_loss_at_the_start(tmp_path: Path) -> None:
    """Δ log π_s is 0 before the first update, so the loss is the mean square of Δ log π_w."""
    settings = job(EVERY[2])
    assert isinstance(settings.objective, Wspo)
    metrics = run(replace(settings, batch_size=ROWS), tmp_path / "out")
    squares = [np.mean(np.square(own)) for own in settings.objective.weak_log_ratios]
    assert metrics["first_loss"] == pytest.approx(float(np.mean(squares)), abs=1e-5)
    assert metrics["final_loss"] < metrics["first_loss"]


def test_weak_log_ratios_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    settings = job(EVERY[2])
    assert isinstance(settings.objective, Wspo)
    ratios = [settings.objective.weak_log_ratios[0][:-1], *settings.objective.weak_log_ratios[1:]]
    with pytest.raises(ValueError, match=r"row r0: weak log-ratios .*the same tokenizer"):
        run(replace(settings, objective=Wspo(0.3, ratios)), tmp_path / "out")


def test_pairs_of_the_same_tokens_are_left_out_and_counted(tmp_path: Path) -> None:
    settings = job(Dpo(0.5))
    same = replace(settings, answers=(("same", "same"), *settings.answers[1:]))
    metrics = run(same, tmp_path / "out")
    assert metrics["identical_rows"] == 1 and metrics["steps"] == 6


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"(at step \d|weights .* are not finite)"):
        run(job(learning_rate=1e30, adam=Adam()), tmp_path / "out")
    assert not (tmp_path / "out" / "curve.parquet").exists()


def test_a_job_travels_by_pickle_and_checks_its_rows() -> None:
    settings = job(Dpo(0.5))
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ValueError, match="row r0: 1 answers, expected 2"):
        replace(settings, answers=(("one",), *settings.answers[1:]))


def test_out_of_memory_halves_the_micro_batch(tmp_path: Path) -> None:
    budgets: list[int] = []

    def fit(settings: TextJob) -> dict[str, Any]:
        budgets.append(settings.token_budget)
        if len(budgets) < 3:
            raise torch.OutOfMemoryError("out of memory")
        return run(settings, tmp_path / "out")

    metrics = oom_retry.retry_on_oom(job(), fit)
    assert budgets == [4096, 2048, 1024] and metrics["out_of_memory"] == 2


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_rises_to_its_peak_and_is_the_schedule_after(schedule: str) -> None:
    rates = [learning_rate_at(step, 25, 2.0, schedule, 0.2) for step in range(25)]
    np.testing.assert_allclose(rates[:6], 2.0 * np.arange(1, 7) / 6)
    assert rates[5:] == [learning_rate_at(step, 20, 2.0, schedule) for step in range(20)]


def test_the_model_with_its_chat_template_reads_completions() -> None:
    causal = load_causal(MODEL, "fp32", device="cpu")
    causal.tokenizer.chat_template = "[{{ messages[0].content }}]"
    tokens = completion_tokens(
        ["a"], ["hi"], [["yes"]], causal.tokenizer, render="chat_template",
        end_id=causal.end_ids[0], max_length_tokens=64,
    )  # fmt: skip
    (values,) = token_log_probs(AnswerScorer(causal.module), tokens)
    assert len(values) == 4 and (values < 0).all()
