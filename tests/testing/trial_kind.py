"""A kind of step that the product does not have: the norms of stored features.

It shows all that a new kind costs: a configuration, a row, a method of the builder, and a module
with ``run`` (this file; ``run_together`` only because the trial can also be fused).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from w2s_ray.plan.build import Builder
from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Fusion, Kind, Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft


@dataclass(frozen=True, slots=True)
class NormsConfig(Config):
    split: str
    order: int

    def as_json(self) -> dict[str, Any]:
        return {"split": self.split, "order": self.order}


def fuse_norms(step: Step) -> Fusion:
    return Fusion(__name__, (step.inputs["features"],))


NORMS = Kind("norms", 1, __name__, needs_torch=False, plural="sets of norms")
FUSED_NORMS = Kind("norms", 1, __name__, needs_torch=False, fusion=fuse_norms)


class TrialBuilder(Builder):
    """The builder with a method for the new kind."""

    def norms(self, kind: Kind, features: Step, order: int) -> Step:
        """The norms of the test rows' states."""
        config = NormsConfig("test", order)
        inputs = {"features": features.key}
        return self.add(kind, f"{features.slug}-l{order}", config, inputs)


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``norms.npy``, (n, m) float32."""
    config = step.config_as(NormsConfig)
    states = np.load(inputs["features"].file(f"{config.split}.npy"))
    norms = np.linalg.norm(states, ord=config.order, axis=-1)
    np.save(draft.folder / "norms.npy", norms)
    draft.metrics["mean_norm"] = float(norms.mean())


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    return [partial(_write, step, artifacts, context) for step in steps]


def _write(step: Step, artifacts: Artifacts, context: Context, draft: Draft) -> None:
    inputs = {role: artifacts(key) for role, key in step.inputs.items()}
    run(step, inputs, draft, context)
