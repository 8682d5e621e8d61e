"""The schedule runs every step once, after its inputs, and stops on nothing but descendants."""

from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.plan.graph import Step
from w2s_ray.plan.schedule import Schedule


@st.composite
def graphs(draw):
    """A random DAG as steps in topological order, and the set of those that will fail."""
    size = draw(st.integers(1, 12))
    steps = {}
    for number in range(size):
        parents = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        inputs = {f"in{p}": f"k{p}" for p in parents}
        steps[f"k{number}"] = Step("student", f"k{number}", "slug", 1, {}, inputs)
    failing = draw(st.sets(st.sampled_from(sorted(steps))))
    return steps, failing


def ancestors(steps, key):
    above = set()
    for parent in steps[key].inputs.values():
        above |= {parent} | ancestors(steps, parent)
    return above


@given(graphs(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_each_step_runs_once_after_its_inputs_and_failures_block_descendants_only(
    graph, random, width
):
    steps, failing = graph
    schedule, running, ran = Schedule(steps), [], []
    while not schedule.finished:
        while len(running) < width and (step := schedule.start()):
            assert ancestors(steps, step.key) <= schedule.done
            running.append(step.key)
        key = running.pop(random.randrange(len(running)))
        ran.append(key)
        (schedule.fail if key in failing else schedule.succeed)(key)
    expected = {key for key in steps if not ancestors(steps, key) & failing}
    assert sorted(ran) == sorted(expected)
    assert schedule.failed == expected & failing
    assert set(schedule.blocked) == set(steps) - expected
    assert schedule.waiting == 0


def test_urgent_steps_first_and_unaccepted_ones_stay_ready():
    steps = {name: Step("student", name, "", 1, {"n": n}, {}) for n, name in enumerate("abc")}
    schedule = Schedule(steps, priority=lambda step: step.config["n"])
    assert schedule.start(lambda step: step.key != "c").key == "b"
    assert schedule.start().key == "c"
    assert schedule.ready == {"a"}
