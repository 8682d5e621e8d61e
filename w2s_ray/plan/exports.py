"""Exported models of a plan: where they are, and which finished steps have none."""

from collections import Counter
from collections.abc import Container

from w2s_ray.plan.graph import Plan
from w2s_ray.store.artifacts import Store

EXPORTED = "export/config.json"  # a file of every step that was exported


def exports(plan: Plan, kinds: Container[str], store: Store) -> list[str]:
    """The folders of the exported models of these kinds, in the order of the plan."""
    keys = [step.key for step in plan if step.kind.name in kinds]
    exported = store.file_locations(keys, EXPORTED)
    return [exported[key].rpartition("/")[0] for key in keys if key in exported]


def not_exported(
    plan: Plan, kinds: Container[str], finished: Container[str], store: Store
) -> Counter[str]:
    """Counts, by kind, finished steps of these kinds that have no export."""
    wanted = {
        step.key: step.kind.name
        for step in plan
        if step.kind.name in kinds and step.key in finished
    }
    exported = store.file_locations(wanted, EXPORTED)
    return Counter(kind for key, kind in wanted.items() if key not in exported)
