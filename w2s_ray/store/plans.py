"""Plans as the store keeps them: ``plans/<study>.json`` has the keys of all steps of a study.

A run writes it before its first step. The cells of a study are written at the end of a run, and do
not name every step; so this file says what an interrupted study needs of the store.
"""

from collections.abc import Iterable, Sequence

from w2s_ray.masking import masked_value
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import plan_file
from w2s_ray.store.records import json_bytes

PLAN_SCHEMA = 1


def save_plan(
    store: StoreFiles, study: str, keys: Iterable[str], overridden: Sequence[str] = ()
) -> None:
    """Writes the keys of a study's steps, unless they are there.

    Args:
        overridden: what the command set in place of the spec's values, as ``grid.seed=[0,1]``.

    Raises:
        OSError: The store cannot be written.
    """
    path = plan_file(study)
    plan = {"schema": PLAN_SCHEMA, "study": study, "keys": sorted(keys)}
    if overridden:
        plan["set"] = masked_value(list(overridden))
    content = json_bytes(plan)
    if store.backend.read([path]) != [content]:
        store.backend.write(path, content)
