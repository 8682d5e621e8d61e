"""Which ready step goes first, and how large a fused group is."""

import pytest

from tests.testing.steps import a_step
from w2s_ray.plan.schedule import ABOUT_EQUAL, LARGEST_PART, SMALLEST_PART, Schedule
from w2s_ray.plan.step import Step


def plain(name: str, *parents: str, model: str | None = None) -> Step:
    return a_step("student", name, inputs={p: p for p in parents}, model=model)


def heads(count: int) -> list[Step]:
    return [
        a_step("student", f"h{n}", inputs={"features": "f"}, trainable="last_layer")
        for n in range(count)
    ]


def schedule(steps: list[Step], cost: dict[str, float] | None = None) -> Schedule:
    return Schedule({step.key: step for step in steps}, cost)


def keys(group: tuple[Step, ...]) -> list[str]:
    return [step.key for step in group]


def after_one_of_model_a(steps: list[Step], cost: dict[str, float] | None = None) -> list[str]:
    """What starts when a step of model a, started first, has finished."""
    ready = schedule([plain("first", model="a"), *steps], cost)
    assert keys(ready.start(lambda step: step.key == "first")) == ["first"]
    ready.succeed("first")
    return keys(ready.start())


def test_without_costs_the_loaded_model_goes_on_if_its_chain_is_as_long() -> None:
    equal = [plain("b", model="b"), plain("a", model="a")]
    assert after_one_of_model_a(equal) == ["a"]
    longer = [*equal, plain("below b", "b", model="b")]
    assert after_one_of_model_a(longer) == ["b"]


@pytest.mark.parametrize(("share", "first"), [(1.0, "a"), (ABOUT_EQUAL, "a"), (0.89, "b")])
def test_the_loaded_model_goes_on_among_steps_of_about_equal_cost(share: float, first: str) -> None:
    steps = [plain("b", model="b"), plain("a", model="a")]
    assert after_one_of_model_a(steps, {"b": 10.0, "a": 10.0 * share}) == [first]


def test_a_cheap_step_waits_however_small_the_costs_are() -> None:
    steps = [plain("b", model="b"), plain("a", model="a")]
    assert after_one_of_model_a(steps, {"b": 1.0, "a": 0.5}) == ["b"]
    assert after_one_of_model_a(steps, {"b": 1e-3, "a": 1e-4}) == ["b"]


def test_a_step_of_unknown_cost_counts_as_free() -> None:
    assert keys(schedule([plain("unknown"), plain("a")], {"a": 0.5}).start()) == ["a"]


def test_among_equals_the_order_of_the_plan_holds() -> None:
    names = ["d", "b", "a", "c"]
    ready = schedule([plain(name, model=name) for name in names])
    assert [keys(ready.start()) for _ in names] == [[name] for name in names]


def test_a_blocked_step_names_the_failed_one() -> None:
    ready = schedule(
        [plain("a"), plain("b"), plain("child", "a", "b"), plain("grandchild", "child")]
    )
    ready.start(lambda step: step.key == "b")
    ready.fail("b")
    assert ready.blocked == {"child": "b", "grandchild": "b"}


@pytest.mark.parametrize(
    ("count", "processes", "size"),
    [
        (3 * SMALLEST_PART, None, 3 * SMALLEST_PART),  # one process takes all
        (3 * SMALLEST_PART + 1, 3, SMALLEST_PART + 1),  # an even share, rounded up
        (SMALLEST_PART + 1, 2, SMALLEST_PART),
        (LARGEST_PART + 1, 1, LARGEST_PART),
    ],
)
def test_a_group_is_an_even_share_within_bounds(
    count: int, processes: int | None, size: int
) -> None:
    options = {} if processes is None else {"processes": processes}
    assert len(schedule(heads(count)).start(**options)) == size


def test_a_group_is_no_larger_than_its_fusion_allows() -> None:
    steps = [
        a_step("student", f"l{n}", inputs={"prepare": "p"}, trainable="lora", lora_together=4)
        for n in range(10)
    ]
    ready = schedule(steps)
    assert [len(ready.start()) for _ in range(4)] == [4, 4, 2, 0]


def test_a_step_that_is_not_accepted_stays_out_of_the_group() -> None:
    ready = schedule(heads(4))
    assert keys(ready.start(lambda step: step.key != "h2")) == ["h0", "h1", "h3"]
    assert ready.ready == {"h2"}
    assert keys(ready.start()) == ["h2"]
