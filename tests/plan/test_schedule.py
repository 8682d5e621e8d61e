"""The schedule runs every step once, after its inputs, and stops on nothing but descendants."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.testing.steps import a_step
from w2s_ray.plan.schedule import SMALLEST_PART, Schedule
from w2s_ray.store.canonical import digest


@st.composite
def graphs(draw):
    """A random DAG as steps in topological order, and the set of those that will fail.

    Some steps are scores or heads, which are fused.
    """
    size = draw(st.integers(1, 12))
    steps = {}
    for number in range(size):
        parents = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        inputs = {f"in{p}": f"k{p}" for p in parents}
        kind = draw(st.sampled_from(["student", "evaluate", "ceiling"]))
        trainable = draw(st.sampled_from(["full", "last_layer"]))
        inputs["features"] = draw(st.sampled_from(["f", "g"]))
        steps[f"k{number}"] = a_step(kind, f"k{number}", inputs=inputs, trainable=trainable)
    failing = draw(st.sets(st.sampled_from(sorted(steps))))
    return steps, failing


def ancestors(steps, key):
    above = set()
    for parent in set(steps[key].inputs.values()) & set(steps):
        above |= {parent} | ancestors(steps, parent)
    return above


def plain(name, parents=(), model=None, kind="student"):
    return a_step(kind, name, inputs={p: p for p in parents}, model=model)


def by_key(*steps):
    return {step.key: step for step in steps}


def keys(group):
    return [step.key for step in group]


@given(graphs(), st.randoms(use_true_random=False), st.integers(1, 4), st.booleans())
def test_each_step_runs_once_after_its_inputs_and_failures_block_descendants_only(
    graph, random, width, costly
):
    steps, failing = graph
    cost = {key: random.choice([0.0, 1.0, 3.0]) for key in steps} if costly else None
    schedule, running, ran, crashes = Schedule(steps, cost), [], [], Counter()
    while not schedule.finished:
        while len(running) < width and (group := schedule.start()):
            assert len({step.fusion for step in group}) == 1
            assert len(group) == 1 or group[0].fusion is not None
            for step in group:
                assert ancestors(steps, step.key) <= schedule.done
                assert len(group) == 1 or crashes[step.key] < 2
                running.append(step.key)
        key = running.pop(random.randrange(len(running)))
        if crashes[key] < 2 and random.random() < 0.3:
            crashes[key] += 1
            schedule.give_back(key, alone=crashes[key] == 2)
            continue
        ran.append(key)
        (schedule.fail if key in failing else schedule.succeed)(key)
    expected = {key for key in steps if not ancestors(steps, key) & failing}
    assert sorted(ran) == sorted(expected)
    assert schedule.failed == expected & failing
    assert set(schedule.blocked) == set(steps) - expected
    assert schedule.waiting == 0


def test_costly_steps_first_and_unaccepted_ones_stay_ready():
    steps = by_key(plain("a"), plain("b"), plain("c"))
    schedule = Schedule(steps, {"a": 0, "b": 1, "c": 2})
    assert keys(schedule.start(lambda step: step.key != "c")) == ["b"]
    assert keys(schedule.start()) == ["c"]
    assert schedule.ready == {"a"}


def test_what_leads_to_the_most_costly_chain_goes_first():
    steps = by_key(plain("big"), plain("small"), plain("heir", ["small"]))
    assert keys(Schedule(steps, {"big": 5, "small": 1, "heir": 9}).start()) == ["small"]
    assert keys(Schedule(steps, {"big": 5, "small": 1, "heir": 3}).start()) == ["big"]
    assert keys(Schedule(steps).start()) == ["small"]  # unknown costs: the longest chain


def test_a_free_process_keeps_its_model_among_steps_about_as_urgent():
    steps = by_key(*(plain(f"{model}{n}", model=model) for n in range(2) for model in "ab"))
    cost = {"a0": 10, "b0": 9.9, "a1": 9.8, "b1": 1}
    schedule = Schedule(steps, cost)
    ran = []
    while group := schedule.start():
        ran += keys(group)
        schedule.succeed(ran[-1])
    assert ran == ["a0", "a1", "b0", "b1"]
    cost["a1"] = 5  # by far less urgent than b0: the model makes room
    schedule = Schedule(steps, cost)
    schedule.succeed(keys(schedule.start())[0])
    assert keys(schedule.start()) == ["b0"]


def heads(count, features="f", kind="student"):
    return [
        a_step(kind, f"{kind}{features}{n}", inputs={"features": features}, trainable="last_layer")
        for n in range(count)
    ]


def test_ready_heads_on_the_same_features_and_split_go_together_and_no_others():
    schedule = Schedule(
        by_key(
            *heads(3),
            *heads(2, features="g"),
            *heads(2, kind="ceiling"),
            *heads(2, kind="weak"),
            plain("whole"),
            plain("late", ["studentf0"], kind="evaluate"),
        )
    )
    groups = []
    while group := schedule.start():
        groups.append(sorted(keys(group)))
    assert sorted(groups) == [
        ["ceilingf0", "ceilingf1", "weakf0", "weakf1"],
        ["studentf0", "studentf1", "studentf2"],
        ["studentg0", "studentg1"],
        ["whole"],
    ]
    schedule.succeed("studentf0")
    assert keys(schedule.start()) == ["late"]


def test_groups_are_ranges_of_keys_and_end_where_a_claim_ends():
    keys_of = [digest(["head", number]) for number in range(8 * SMALLEST_PART)]
    steps = [
        a_step("student", key, inputs={"features": "f"}, trainable="last_layer") for key in keys_of
    ]
    schedule = Schedule(by_key(*steps))
    groups = [schedule.start(processes=4 - n) for n in range(4)]
    assert sum(map(len, groups)) == len(steps) and all(len(group) > 1 for group in groups)
    for group in groups:
        assert [step.key for step in group] == sorted(step.key for step in group)
    claims = [{step.claim for step in group} for group in groups]
    assert sum(map(len, claims)) == len(set.union(*claims)) == 16, "no two groups share a claim"


def test_steps_that_are_more_urgent_do_not_take_the_claims_of_all_others():
    keys_of = [digest(["head", number]) for number in range(8 * SMALLEST_PART)]
    inputs = {"features": "f"}
    heads = [a_step("student", key, inputs=inputs, trainable="last_layer") for key in keys_of]
    chained = [a_step("label", f"l{key}", inputs={"weak": key}) for key in keys_of[::3]]
    schedule = Schedule(by_key(*heads, *chained))
    claims = [{step.claim for step in schedule.start(processes=4 - n)} for n in range(4)]
    assert sum(map(len, claims)) == len(set.union(*claims)) == 16


def test_scores_are_grouped_as_the_models_that_they_read():
    models = [digest(["head", number]) for number in range(40)]
    steps = [a_step("evaluate", digest([key]), inputs={"model": key}) for key in models]
    (group,) = [Schedule(by_key(*steps)).start()]
    assert [step.inputs["model"] for step in group] == sorted(models)


def test_a_step_whose_fusion_is_limited_is_claimed_by_itself():
    lora = a_step("student", "l1", inputs={"prepare": "p"}, trainable="lora", lora_together=4)
    heads_of = [
        a_step("student", key, inputs={"features": of}, trainable="last_layer")
        for key, of in (("ab", "f"), ("ac", "f"), ("ab", "g"), ("bb", "f"))
    ]
    whole = a_step("student", "w1")
    assert (lora.claim, whole.claim) == ("l1", "w1")
    assert heads_of[0].claim == heads_of[1].claim
    assert len({step.claim for step in heads_of}) == 3


def test_a_large_group_leaves_an_even_share_to_each_free_process():
    count = 3 * SMALLEST_PART
    schedule = Schedule(by_key(*heads(count)))
    sizes = []
    for free in (3, 2, 1):
        sizes.append(len(schedule.start(processes=free)))
    assert sizes == [SMALLEST_PART] * 3 and not schedule.ready
    few = Schedule(by_key(*heads(SMALLEST_PART)))
    assert len(few.start(processes=8)) == SMALLEST_PART
