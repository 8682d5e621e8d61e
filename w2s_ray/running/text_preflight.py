"""Checks of a study of generated text before anything is spent, in the driver: prompts that cannot
be read, checks that cannot run, models without a chat template or an end token, and models that are
compared token by token but have different vocabularies. Prompts and given pairs are read here."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

from w2s_ray.catalog.configs import config_fields
from w2s_ray.data.rendering import check_rendering
from w2s_ray.errors import InputError, at
from w2s_ray.models.tokenizer import tokenizer_to_check
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import (
    ClassifierConfig,
    GenerateConfig,
    GivenPairsConfig,
    PerplexityConfig,
    RatiosConfig,
    TextTrainConfig,
)
from w2s_ray.running.given_pairs import check_given, say_given
from w2s_ray.running.runner import execute
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.tasks.check import check_checker

Say = Callable[[str], None]


def _is_from_sources(step: Step) -> bool:
    """Whether a step is computed here, where the sources are."""
    return step.kind.name in ("prompts", "classifier") or isinstance(step.config, GivenPairsConfig)


def prepare_prompts(
    spec: GenerationSpec, todo: Mapping[str, Step], store: Store, say: Say
) -> dict[str, Step]:
    """Checks the models that ``todo`` needs, prepares the prompts; returns the remaining steps.

    Raises:
        InputError: a model, a prompt or a setting that would make a step fail.
    """
    with at("prompts"):
        check_checker(spec.prompts)
    _check_tokenizers(spec, todo)
    _check_vocabularies(spec, todo)
    _open_models(spec, todo)
    for key in store.finished_among(store.listing("checkpoints")):
        Checkpoints(store, key).discard()  # of a driver that died just after the commit
    counts: dict[str, int] = {}
    repeated = 0
    for step in filter(_is_from_sources, todo.values()):
        given = isinstance(step.config, GivenPairsConfig)
        with store.writing_errors(), at("pairs", "given") if given else nullcontext():
            metrics = execute(step, store)
        if given:
            say_given(metrics, say)
            continue
        if step.kind.name == "classifier":
            config = step.config_as(ClassifierConfig)
            say(
                f"classifier {config.kind} ({config.part}): {metrics['accuracy']:.1%} right of "
                f"{metrics['rows']:,} texts that it has not seen"
            )
            continue
        counts |= metrics["prompts"]
        repeated = max(repeated, metrics["repeated_rows"])
    check_given(spec, todo, store, say)
    if counts:
        say(f"prompts: {', '.join(f'{count:,} {split}' for split, count in counts.items())}")
    if repeated:
        say(f"note: {repeated:,} rows repeat the prompt of an earlier one, and are left out")
    return {key: step for key, step in todo.items() if not _is_from_sources(step)}


def _check_tokenizers(spec: GenerationSpec, todo: Mapping[str, Step]) -> None:
    """Refuses a tokenizer that cannot render a prompt, or that has no token to end an answer."""
    for name, step in _models(spec, todo).items():
        config = step.config
        if isinstance(config, PerplexityConfig):  # it reads plain text, and generates none
            continue
        assert isinstance(config, GenerateConfig | RatiosConfig | TextTrainConfig)
        rendering = (
            config.training.rendering if isinstance(config, TextTrainConfig) else config.rendering
        )
        model = spec.models[name]
        tokenizer = tokenizer_to_check(model)
        check_rendering(tokenizer, rendering, f"of model '{name}'")
        fields = config_fields(model) or {}
        ends = tokenizer.eos_token_id is not None or fields.get("eos_token_id") is not None
        if model.source is not None and not ends:
            raise InputError(
                f"models.{name}: its tokenizer has no end token (eos_token), expected one, with "
                "which answers end",
                ("models", name),
            )


def _check_vocabularies(spec: GenerationSpec, todo: Mapping[str, Step]) -> None:
    """Refuses to compare two models token by token whose tokens are not the same."""
    names = {model: name for name, model in spec.models.items()}
    pairs = {
        (names[step.model], names[step.second_model])
        for step in todo.values()
        if step.model is not None and step.second_model is not None
    }
    for strong, weak in sorted(pairs):
        vocabularies = [
            tokenizer_to_check(spec.models[name]).get_vocab() for name in (strong, weak)
        ]
        if vocabularies[0] != vocabularies[1]:
            raise InputError(
                f"grid.method: given wspo or proxy with the models '{weak}' and '{strong}', whose "
                "tokenizers differ, expected one tokenizer: these methods compare token by token",
                ("grid", "method"),
            )


def _open_models(spec: GenerationSpec, todo: Mapping[str, Step]) -> None:
    """Opens every model once; with adapters if any step trains them."""
    from w2s_ray.models.preflight import check_models

    needed = _models(spec, todo)
    names = {model: name for name, model in spec.models.items()}
    sharded = {
        names[step.model]
        for step in todo.values()
        if step.model is not None and step.execution.is_sharded
    }
    outside = {
        name: spec.models[name] for name in needed if name == spec.evaluation.perplexity_model
    }
    others = {name: spec.models[name] for name in needed if name not in outside}
    lora = spec.training.lora if spec.training.trainable == "lora" else None
    for models, adapters in ((others, lora), (outside, None)):
        if models:
            check_models(models, adapters, sharded, set(models))


def _models(spec: GenerationSpec, todo: Mapping[str, Step]) -> dict[str, Step]:
    """A step of each model that runs, by the model's name."""
    names = {model: name for name, model in spec.models.items()}
    return {names[step.model]: step for step in todo.values() if step.model is not None}
