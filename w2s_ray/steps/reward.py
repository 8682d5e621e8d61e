"""``reward``: a weak language model learns the true preferences, and its implicit rewards label.

After DPO the reward of an answer is r̂(x, y) = β [log π(y | x) − log π_ref(y | x)], π_ref the model
before (Rafailov et al., arXiv 2305.18290). The weak label of a pair is σ(r̂_A − r̂_B), the
probability that answer A is better (Tao and Li, arXiv 2409.08813). The tokens are those that every
model of the study reads, without one that ends an answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.log_ratios import answer_log_ratios, implicit_reward_sums
from w2s_ray.plan.configs import RewardConfig, Training
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import adam
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import TEST_PREDICTIONS
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.oom_retry import retry_on_oom
from w2s_ray.training.outputs import predictions
from w2s_ray.training.text_job import Dpo, TextJob


@dataclass(frozen=True, kw_only=True)
class PairsJob(TextJob):
    """A ``TextJob`` on rows of a data set, as tokens that its other models read too."""

    rows: pa.Table
    training: Training

    def encoded(self, tokenizer: PreTrainedTokenizerFast, end_id: int) -> Tokens:
        """The rows as tokens; errors of ``data.tokens.encode``."""
        return encode(
            self.rows, tokenizer, self.training.max_length_tokens, self.training.rendering
        )


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes the trained parameters, the curve and the predictions of the test rows."""
    config, data = step.config_as(RewardConfig), Rows(inputs["prepare"])
    job = _job(step, config, data["ground_truth"], context)
    fit = partial(fit_text, out=draft.folder, progress=context.progress, keep=context.keep)
    draft.metrics.update(retry_on_oom(job, fit))
    test = data["test"]
    assert step.model is not None
    rewards = reward_logits(step.model, config.training, config.beta, draft.folder / WEIGHTS)
    tokens = encode(
        test, rewards.tokenizer, config.training.max_length_tokens, config.training.rendering
    )
    draft.write(TEST_PREDICTIONS, predictions(test, rewards(tokens, lambda done: None)))


def _job(step: Step, config: RewardConfig, rows: pa.Table, context: Context) -> PairsJob:
    training = config.training
    assert step.model is not None
    return PairsJob(
        name=f"{step.slug}-{step.key}",
        model=step.model,
        initial=None,
        row_ids=tuple(rows["row_id"].to_pylist()),
        prompts=tuple(rows["prompt"].to_pylist()),
        answers=tuple(map(tuple, rows["answers"].to_pylist())),
        objective=Dpo(config.beta, preferred=tuple(map(float, rows["label"].to_pylist()))),
        trainable=training.trainable,
        lora=training.lora,
        seed=config.seed,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        warmup=0.0,
        adam=adam(config),
        max_length_tokens=training.max_length_tokens,
        precision=training.precision,
        render=training.rendering.render,
        execution=step.execution,
        checkpoints=context.checkpoints,
        rows=rows,
        training=training,
    )


@dataclass(frozen=True)
class RewardLogits:
    """The model after its training and before, which together give logits of pairs."""

    post: AnswerScorer
    pre: AnswerScorer
    tokenizer: PreTrainedTokenizerFast
    beta: float

    def __call__(self, tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        """(n, 2) float32 logits (0, r̂_A − r̂_B) of n pairs; ``progress`` is called at the end.

        Raises:
            FloatingPointError: a log-probability is not finite; names the row.
        """
        ratios = answer_log_ratios(self.post, self.pre, tokens)
        rewards = implicit_reward_sums(ratios, tokens, self.beta)
        margins = rewards[:, 0] - rewards[:, 1]
        margins[tokens.identical] = 0.0  # whatever rounding makes of equal answers
        progress(len(tokens.ids))
        return np.stack([np.zeros_like(margins), margins], axis=1).astype(np.float32)


def reward_logits(model: ModelSpec, training: Training, beta: float, weights: Path) -> RewardLogits:
    """Loads both models.

    Args:
        model: the weights before training.
        weights: the file that the training wrote.
    """
    post = load_causal(model, training.precision, weights, training)
    pre = load_causal(model, training.precision)
    return RewardLogits(AnswerScorer(post.module), AnswerScorer(pre.module), pre.tokenizer, beta)
