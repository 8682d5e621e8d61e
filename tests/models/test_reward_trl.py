"""Implicit rewards and the loss of DPO are those of TRL's own trainer, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from tests.testing.tiny_models import line, tiny
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.log_ratios import answer_log_ratios, implicit_reward_sums
from w2s_ray.models.structure import untrained_language_model
from w2s_ray.models.tokenizer import bytes_tokenizer

BETA = 0.3
PAIRS = [
    [[5, 6, 7, 8], [1, 2, 3], [9, 4]],
    [[11], [12], [13, 14, 15, 16, 17, 18]],
    [[21, 22], [23, 24, 25], [26]],
]


def language_model(seed: int) -> AnswerScorer:
    config = tiny("llama").module.config
    config.tie_word_embeddings = True
    torch.manual_seed(seed)
    return AnswerScorer(untrained_language_model(config).eval())


def test_trl_finds_the_same_implicit_rewards_and_loss(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    post, pre = language_model(1), language_model(2)
    ids, segments = line(*PAIRS)
    names = [str(number) for number in range(len(PAIRS))]
    tokens = Tokens(names, ids.numpy().astype(np.int32), segments.numpy(), 0)
    rewards = implicit_reward_sums(answer_log_ratios(post, pre, tokens, 1000), tokens, BETA)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [dict(zip(columns, pair, strict=True)) for pair in PAIRS]

    class OnTokens(trl.DPOTrainer):  # type: ignore[name-defined, misc]
        """Takes tokens as they are."""

        def _prepare_dataset(self, dataset: Dataset, *arguments: object, **more: object) -> Dataset:
            return dataset

    trainer = OnTokens(
        model=post.causal,
        ref_model=pre.causal,
        args=trl.DPOConfig(
            output_dir=str(tmp_path),
            beta=BETA,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
        ),
        processing_class=bytes_tokenizer(),
        train_dataset=Dataset.from_list(rows),
    )
    losses = []
    for row, (chosen, rejected) in zip(rows, rewards.reshape(-1, 2), strict=True):
        trainer._metrics["eval"].clear()
        with torch.no_grad():
            losses.append(float(trainer.compute_loss(post.causal, trainer.data_collator([row]))))
        logged = trainer._metrics["eval"]
        assert logged["rewards/chosen"] == [pytest.approx(chosen, abs=1e-4)]
        assert logged["rewards/rejected"] == [pytest.approx(rejected, abs=1e-4)]
    margins = rewards.reshape(-1, 2) @ np.array([1.0, -1.0])
    assert np.ptp(margins) > 1.0, "they would be equal for no reason"
    assert losses == pytest.approx(list(np.log1p(np.exp(-margins))), abs=1e-4)
