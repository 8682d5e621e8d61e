"""Checks before anything is spent, in the driver: models that cannot be opened, rows that cannot
be read, settings that do not suit the data. The data are prepared here too."""

from collections.abc import Callable, Mapping
from typing import Any

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.plan.classes import check_classes
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.layouts import TEXTS_PER_ROW
from w2s_ray.plan.row_counts import check_rows
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.schema import ModelSpec, Spec
from w2s_ray.steps.exports import is_exported
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints

Report = Callable[[str, Mapping[str, Any]], None]
ReportTokens = Callable[[str, str, Mapping[str, int]], None]


def prepare_data(
    spec: Spec,
    plan: Plan,
    todo: Mapping[str, Step],
    store: Store,
    report: Report,
    report_tokens: ReportTokens = lambda data, model, counts: None,
) -> dict[str, Step]:
    """Checks the models that ``todo`` needs, prepares its data, and returns the remaining steps.

    Args:
        report: takes the name of a data set and the report of its rows.
        report_tokens: takes the names of a data set and of a model, and the counts of its rows as
            tokens (``token_counts.TokenCounts``).

    Raises:
        InputError: a model, a row or a setting that would make a step fail.
    """
    _check_weights(plan, todo, store)
    _open_models(spec, todo)
    _check_exports(todo)
    for key in store.finished_among(store.listing("checkpoints")):
        Checkpoints(store, key).discard()  # of a driver that died just after the commit
    read = ("prepare", "test_set")
    for step in (step for step in todo.values() if step.kind.name in read):
        with store.writing_errors():  # errors of the sources are InputErrors already
            metrics = execute(step, store)
        report(step.slug, metrics["report"])
        check_classes(
            [cell for cell in plan.cells if cell.keys["prepare"] == step.key],
            metrics["num_classes"],
        )
    _check_rows(plan, store)
    remaining = {key: step for key, step in todo.items() if step.kind.name not in read}
    if any(step.backbone is not None for step in remaining.values()):
        from w2s_ray.running.token_counts import count_tokens

        count_tokens(spec, remaining, store, report_tokens)
    return remaining


def _check_rows(plan: Plan, store: Store) -> None:
    """Refuses settings that leave no row to learn from; a split's size is known by now."""
    data = {cell.keys["prepare"]: cell.values["data"] for cell in plan.cells}
    for key, name in data.items():
        steps = [step for step in plan if step.inputs.get("prepare") == key]
        check_rows(steps, name, Rows(store.artifact(key)).count("weak"))


def _check_weights(plan: Plan, todo: Mapping[str, Step], store: Store) -> None:
    """Refuses to label with students whose weights were not kept when they were trained."""
    students = [
        key
        for step in todo.values()
        if step.kind.name == "label" and (key := step.inputs["weak"]) not in todo
        if plan.steps[key].kind.name == "student" and plan.steps[key].backbone is not None
    ]
    kept = store.file_locations(students, WEIGHTS)
    lacking = [key for key in students if key not in kept]
    if lacking:
        names = store.finished()
        more = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
        raise InputError(
            f"grid.chain: given a chain in which {store.location(names[lacking[0]])}{more} labels "
            "for the next student, expected its weights, which were not kept when it was trained; "
            "delete the folder to train it again, or give keep_models: [weak, student] before",
            ("grid", "chain"),
        )


def _check_exports(todo: Mapping[str, Step]) -> None:
    """Refuses models that no class of transformers can hold."""
    exported = [step for step in todo.values() if is_exported(step)]
    if not exported:
        return
    from w2s_ray.models.export import check_exportable
    from w2s_ray.models.preflight import model_config

    for step in exported:
        assert step.model is not None
        assert step.data is not None
        known, trainable = shape(step.model), step.config_as(TrainConfig).training.trainable
        if known is not None:
            config = model_config(step.model)
            check_exportable(config, trainable, TEXTS_PER_ROW[step.data.kind])


def _open_models(spec: Spec, todo: Mapping[str, Step]) -> None:
    """Opens every model once; with adapters if any step trains them."""
    names = {model: name for name, model in spec.models.items()}
    plain: dict[str, ModelSpec] = {}
    adapted: dict[str, ModelSpec] = {}
    sharded: set[str] = set()
    with_head: set[str] = set()
    for step in todo.values():
        if step.backbone is not None:
            name = names[step.backbone]
            opened = adapted if _has_adapters(step) else plain
            opened[name] = step.backbone
            if step.execution.is_sharded:
                sharded.add(name)
            if step.kind.name in ("untrained", "reward"):
                with_head.add(name)
    if not plain and not adapted:
        return
    from w2s_ray.models.preflight import check_models

    only_plain = {n: model for n, model in plain.items() if n not in adapted}
    check_models(only_plain, None, sharded, with_head)
    check_models(adapted, spec.training.lora, sharded, with_head)


def _has_adapters(step: Step) -> bool:
    return isinstance(step.config, TrainConfig) and step.config.training.lora is not None
