"""Before a run: the store is tried, inputs are checked, data prepared; what remains is found."""

from w2s_ray.data.counting import counted
from w2s_ray.driver.study import Study
from w2s_ray.plan.exports import not_exported
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import GivenPairsConfig
from w2s_ray.running.installed import check_installed
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.store.leftovers import remove_leftovers
from w2s_ray.store.names import (
    RESERVED,
    predictions_file,
    results_file,
    samples_file,
    study_file,
    train_predictions_file,
    transfer_file,
)
from w2s_ray.store.plans import save_plan
from w2s_ray.store.results import replaced_cells

_FILES = (
    study_file,
    results_file,
    predictions_file,
    train_predictions_file,
    transfer_file,
    samples_file,
)


def prepared(study: Study, *, local: bool) -> dict[str, Step]:
    """Checks the inputs, prepares the data, and returns the steps that remain."""
    plan, store = study.plan, study.store
    store.probe((*RESERVED, *plan.count()), [file(plan.study) for file in _FILES])
    remove_leftovers(store)
    with store.writing_errors():
        save_plan(store, plan.study, plan.steps, study.file.overridden)
    checked = store.checked(plan.steps)
    for damage in checked.damaged:
        study.set_aside(damage)
    todo = study.reruns.todo(plan, checked.finished, store)
    study.say(
        f"study {plan.study}: {counted(len(plan.cells), 'cell')}, "
        f"{counted(len(todo), 'step')} to do, "
        f"{len(checked.finished):,} already done"
    )
    _say_what_changes(study, checked.finished)
    if not todo:
        return {}
    check_installed(todo, local=local)
    study.say_lost_weights(checked.finished)
    _report_finished_rows(study, checked.finished)
    return _prepare_data(study, todo)


def _say_what_changes(study: Study, finished: set[str]) -> None:
    """Cells that left the spec, and models that have no export."""
    if replaced := replaced_cells(study.store, study.plan.study, study.cells):
        study.say(
            f"note: {replaced:,} cells in this study's tables are not in the spec any more; "
            "their rows are removed by this run (their artifacts stay, and the rows return with "
            "the cells)"
        )
    wanted = study.spec.execution.export_models
    if lacking := not_exported(study.plan, wanted, finished, study.store):
        counts = ", ".join(f"{count:,} {kind}" for kind, count in lacking.items())
        study.say(
            f"note: finished steps without an export: {counts} (they ran before export_models "
            "asked for one); delete their folders to train them again"
        )


def _report_finished_rows(study: Study, finished: set[str]) -> None:
    kinds = ("prepare", "test_set")
    read = {s.key: s.slug for s in study.plan if s.kind.name in kinds and s.key in finished}
    for key, record in study.store.records(read).items() if read else ():
        study.report_rows(read[key], record["metrics"]["report"])
    pairs = [s.key for s in study.plan if isinstance(s.config, GivenPairsConfig)]
    for record in study.store.records(key for key in pairs if key in finished).values():
        from w2s_ray.running.given_pairs import say_given

        say_given(record["metrics"], study.say)


def _prepare_data(study: Study, todo: dict[str, Step]) -> dict[str, Step]:
    if isinstance(study.spec, GenerationSpec):
        from w2s_ray.running.text_preflight import prepare_prompts

        return prepare_prompts(study.spec, todo, study.store, study.say)
    from w2s_ray.running.preflight import prepare_data

    return prepare_data(
        study.spec, study.plan, todo, study.store, study.report_rows, study.report_tokens
    )
