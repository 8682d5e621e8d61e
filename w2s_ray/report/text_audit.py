"""What a judge says that nothing was trained on, beside the one whose verdicts are the rewards.

Where the first rate goes up and the second does not, a model has learned what pleases its judge:
reward hacking.
"""

from collections.abc import Iterator

from w2s_ray.report.page import Block, Cell, Table, TableColumn
from w2s_ray.report.text_arms import ModelPair
from w2s_ray.statistics.decomposition import Estimate


def audit_table(pair: ModelPair) -> Iterator[Block]:
    """Rates and differences by both judges; none where there is one judge."""
    if not any(setting.is_audited for setting in pair.chosen):
        return
    compared = {setting.label: of.audit for setting, of in pair.comparisons}
    columns = (
        TableColumn("method"),
        TableColumn("rate", "percent"),
        TableColumn("rate by the audit", "percent"),
        TableColumn("difference by the audit", "points"),
        TableColumn("difference beyond the audit's", "points"),
    )
    rows = []
    for setting in pair.shown:
        audit = compared.get(setting.label)
        rows.append(
            (
                Cell(text=setting.label),
                setting.rate_cell("test"),
                setting.rate_cell("test", "audit_reward"),
                _cell(None if audit is None else audit.difference),
                _cell(None if audit is None else audit.beyond),
            )
        )
    notes = (
        "The audit is a classifier of another kind, trained on texts that the classifier of the "
        "rewards has not seen; nothing is trained on it. A rate that it does not confirm is reward "
        "hacking; of best_of_n, chosen by the rewards, its rate is that of what was chosen.",
    )
    against = "" if pair.baseline is None else f", differences from {pair.baseline.label}"
    caption = f"{pair.name}: rates by the classifier of the rewards and by the audit{against}."
    yield Table(f"audit-{pair.slug}", caption, columns, tuple(rows), "", notes)


def _cell(estimate: Estimate | None) -> Cell:
    return Cell() if estimate is None else Cell(estimate.mean, *estimate.interval())
