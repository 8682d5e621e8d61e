"""What fits is worked out by packing; a needless refusal and a silent wait are both faults."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.steps import a_step
from w2s_ray.capacity.execution import Execution
from w2s_ray.cluster.placement import (
    Need,
    Node,
    fits,
    most_at_once,
    need_of,
    needs,
    refuse_unplaceable,
)
from w2s_ray.errors import InputError
from w2s_ray.plan.step import Step

quarters = st.integers(1, 16).map(lambda n: n / 4)
all_needs = st.lists(
    st.builds(Need, st.integers(1, 4), quarters, st.integers(0, 4).map(lambda n: n / 2)), max_size=8
)
all_nodes = st.lists(
    st.builds(Node, st.integers(0, 16).map(float), st.integers(0, 4).map(float)), max_size=4
)


@given(all_needs, all_nodes)
def test_what_fits_is_within_the_sums(wanted: list[Need], nodes: list[Node]) -> None:
    if fits(wanted, nodes):
        assert sum(n.workers * n.cpus for n in wanted) <= sum(n.cpus for n in nodes) + 1e-3
        assert sum(n.workers * n.gpus for n in wanted) <= sum(n.gpus for n in nodes) + 1e-3


@given(all_needs, all_nodes, st.builds(Node, st.just(16.0), st.just(4.0)))
def test_one_machine_each_is_always_enough(
    wanted: list[Need], nodes: list[Node], big: Node
) -> None:
    processes = sum(need.workers for need in wanted)
    assert fits(wanted, [*nodes, *[big] * processes])


@given(quarters, st.integers(0, 4).map(lambda n: n / 2), st.integers(0, 99), all_nodes)
def test_most_at_once_counts_what_each_machine_holds(
    cpus: float, gpus: float, count: int, nodes: list[Node]
) -> None:
    held = sum(int(min(node.cpus // cpus, node.gpus // gpus if gpus else 1e9)) for node in nodes)
    assert most_at_once([Need(1, cpus, gpus)] * count, nodes) == min(count, held)


def test_a_process_does_not_span_machines() -> None:
    assert fits([Need(2, 2, 1)], [Node(2, 1), Node(2, 1)])
    assert not fits([Need(1, 4, 2)], [Node(2, 1), Node(2, 1)])


def test_cpu_work_leaves_the_gpu_machine_free() -> None:
    assert fits([Need(1, 8, 0), Need(1, 8, 1)], [Node(8, 1), Node(8, 0)])


def test_ten_tenths_fit_one() -> None:
    assert fits([Need(10, 0.1, 0.1)], [Node(1, 1)])


def step(kind: str, **execution: Any) -> Step:
    return a_step(kind, kind, f"a-{kind}", **execution)


def test_steps_of_one_process_share_a_shape() -> None:
    steps = {
        "evaluate": step("evaluate"),
        "features": step("features", cpus_per_worker=2, gpus_per_worker=0.5),
        "student": step("student", workers=4, cpus_per_worker=1, gpus_per_worker=1),
    }
    shape = Need(1, 2, 0.5)
    found = needs(steps, [Node(8, 1)])
    assert found == {"evaluate": shape, "features": shape, "student": Need(4, 1, 1)}


def test_a_step_planned_for_a_type_waits_for_that_type() -> None:
    """Only where machines tell their type; by the name that they tell."""
    planned: dict[str, Any] = {"workers": 2, "gpus_per_worker": 1.0, "gpu_type": "A100-80G"}
    small, large = Node(8, 8, frozenset({"L4"})), Node(8, 8, frozenset({"A100"}))
    need = need_of(Execution(**planned), [small, large])
    assert need.process == {"CPU": 1.0, "GPU": 1.0, "accelerator_type:A100": 0.001}
    assert fits([need], [small, large])
    assert not fits([need], [small])
    assert need_of(Execution(**planned), [Node(8, 8)]) == Need(2, 1, 1)
    with pytest.raises(InputError, match=r"needs 1 CPU and 1 A100-80G GPU .* on 1 machine \(L4\)"):
        refuse_unplaceable({"a": step("student", **planned)}, [small])


def test_refusal_names_step_and_remedy() -> None:
    steps = {"a": step("prepare"), "b": step("student", workers=3, cpus_per_worker=1)}
    refuse_unplaceable(steps, [Node(3, 0)])
    with pytest.raises(InputError) as refusal:
        refuse_unplaceable(steps, [Node(2, 0)])
    assert str(refusal.value) == (
        "execution: the step student a-student needs 1 CPU for each of 3 processes, and the "
        "cluster has 2 CPU and 0 GPU on 1 machine; lower workers, cpus_per_worker or "
        "gpus_per_worker, or add machines"
    )


def test_a_model_that_is_split_needs_gpus_of_one_machine_and_no_warm_actor_has_them() -> None:
    split = a_step("features", "split", gpus_per_worker=1.0, inference_gpus=2)
    plain = a_step("student", "plain", gpus_per_worker=1.0)
    machine, single = Node(8, 2), Node(8, 1)
    found = needs({"split": split, "plain": plain}, [machine])
    assert (found["split"].gpus, found["split"].is_alone) == (2, False)
    assert (found["plain"].gpus, found["plain"].is_alone) == (1, True)
    refuse_unplaceable({"split": split}, [machine])
    with pytest.raises(InputError, match=r"needs 1 CPU and 2 GPU.*with 2 GPUs each"):
        refuse_unplaceable({"split": split}, [single, single])
