"""A new kind of step is one row, one builder method and one module: planned, priced, scheduled,
run and fused without a change anywhere else."""

import numpy as np
import pytest

from tests.testing.specs import tiny_spec
from tests.testing.trial_kind import FUSED_NORMS, NORMS, NormsConfig, TrialBuilder
from w2s_ray.plan.configs import EvaluateConfig
from w2s_ray.plan.cost import estimate
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Kind
from w2s_ray.running.local import run
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store


def planned(kind: Kind) -> Plan:
    """A plan of features and, for each of two orders, their norms."""
    builder = TrialBuilder(Spec.model_validate(tiny_spec()))
    plan = builder.plan()
    for features in [step for step in plan if step.kind.name == "features"]:
        for order in (1, 2):
            builder.norms(kind, features, order)
    return Plan(plan.study, builder.steps, plan.cells)


@pytest.mark.parametrize(("kind", "fused"), [(NORMS, None), (FUSED_NORMS, 2)])
def test_a_new_kind_is_planned_priced_scheduled_and_run(tmp_path, kind, fused):
    plan = planned(kind)
    norms = [step for step in plan if step.kind is kind]
    assert len(norms) == 4  # of two models, by two orders
    needed = {key for step in norms for key in step.inputs.values()}
    needed |= {key for name in needed for key in plan.steps[name].inputs.values()}
    assert plan.count()["norms"] == 4
    todo = {step.key: step for step in plan if step in norms or step.key in needed}
    assert set(todo) < set(plan.todo(finished=()))
    assert estimate(todo.values()) == estimate(s for s in todo.values() if s not in norms)

    store = Store.open(tmp_path / "store")
    schedule = run(todo, store)
    assert schedule.done == set(todo), store.failures()
    for step in norms:
        artifact = store.artifact(step.key)
        states = np.load(store.artifact(step.inputs["features"]).folder / "test.npy")
        order = step.config_as(NormsConfig).order
        expected = (np.abs(states) ** order).sum(axis=-1) ** (1 / order)
        np.testing.assert_allclose(np.load(artifact.folder / "norms.npy"), expected, rtol=1e-5)
        assert artifact.record["config"] == {"split": "test", "order": order}
        assert artifact.record["execution"].get("fused") == fused


def test_a_module_that_reads_the_configuration_of_another_kind_is_stopped():
    (step, *_) = (step for step in planned(NORMS) if step.kind is NORMS)
    with pytest.raises(TypeError, match=r"the norms step .* has no EvaluateConfig"):
        step.config_as(EvaluateConfig)
