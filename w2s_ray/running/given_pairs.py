"""What a run says of preference pairs of the researcher's own, and whether models can read them."""

from collections.abc import Callable, Mapping
from typing import Any

from w2s_ray.data.completions import completion_tokens
from w2s_ray.data.counting import counted
from w2s_ray.data.rendering import RowError
from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import InputError
from w2s_ray.models.tokenizer import tokenizer_to_check
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import TextTrainConfig
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.steps.examples import Examples, pairs_of
from w2s_ray.store.artifacts import Store

Say = Callable[[str], None]


def say_given(metrics: Mapping[str, Any], say: Say) -> None:
    """Says what was read, and what was left out.

    Args:
        metrics: of the step ``pairs``.
    """
    why = "".join(f", {count:,} {reason}" for reason, count in metrics["left_out"].items())
    say(f"pairs: {metrics['pairs']:,} of {counted(metrics['read'], 'row')}{why}")
    for note, count in metrics["notes"].items():
        say(f"note: pairs: {note} ({counted(count, 'row')})")


def check_given(spec: GenerationSpec, todo: Mapping[str, Step], store: Store, say: Say) -> None:
    """Reads given pairs as the models will that are aligned by them; says what is cut.

    Raises:
        InputError: a pair that a chat template refuses, or none whose answers differ as tokens.
    """
    names = {model: name for name, model in spec.models.items()}
    steps = {
        names[step.model]: step
        for step in todo.values()
        if step.kind.name == "align" and step.data is not None and step.model is not None
    }
    for name, step in steps.items():
        rows = pairs_of(store.artifact(step.inputs["pairs"]))
        tokens, most = _tokens(spec, name, step, rows), spec.training.max_length_tokens
        same = int(tokens.identical.sum())
        if same == len(rows.row_ids):
            raise InputError(
                f"training.max_length_tokens: given {most:,}, expected more: model {name!r} reads "
                f"the two answers of each of {same:,} given pairs as the same tokens",
                ("training", "max_length_tokens"),
            )
        if tokens.truncated or same:
            left = (
                f", and {same:,} with two answers of the same tokens are left out" if same else ""
            )
            say(
                f"pairs: model {name!r}: {tokens.truncated:,} of {len(rows.row_ids):,} are cut to "
                f"{most:,} tokens (training.max_length_tokens){left}"
            )


def _tokens(spec: GenerationSpec, name: str, step: Step, rows: Examples) -> Tokens:
    training = step.config_as(TextTrainConfig).training
    tokenizer = tokenizer_to_check(spec.models[name])
    try:
        return completion_tokens(
            rows.row_ids,
            rows.prompts,
            rows.answers,
            tokenizer,
            render=training.rendering.render,
            end_id=tokenizer.eos_token_id or 0,  # one token, whichever it is
            max_length_tokens=training.max_length_tokens,
            name=f"of model '{name}'",
        )
    except RowError as error:
        prompt = rows.prompts[rows.row_ids.index(error.row_id)]
        raise InputError(
            f"pairs.given: the pair whose prompt begins {prompt[:60]!r}: model {name!r}: "
            f"{error.reason}",
            ("pairs", "given"),
        ) from error
