"""Preference pairs of samples: verdicts, lengths and prompt ids decide; nothing is lost unsaid."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.plan.text_configs import PairsConfig
from w2s_ray.steps import pairs

FEW = "prompts with fewer than 2 samples that have ended, hold a word and were judged"


def sample(prompt: str, number: int, text: str = "one two three", **of: Any) -> dict[str, Any]:
    row = {"split": "align", "prompt_id": prompt, "sample": number, "text": text}
    return {**row, "cut_off": False, "error": None, **of}


def by_verdict(
    rows: list[tuple[dict[str, Any], float | None]], config: PairsConfig
) -> tuple[list[tuple[int, int]], Counter[str]]:
    counts: Counter[str] = Counter()
    found = pairs.preferences(rows, config, counts)
    return [(a["sample"], b["sample"]) for a, b in found], counts


def config(tolerance: float = 0.2, most: int = 2) -> PairsConfig:
    return PairsConfig("verdicts", 0, tolerance, most)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 12)), max_size=10),
    st.integers(1, 4),
)
def test_a_pair_prefers_the_higher_reward_at_about_equal_length(
    drawn: list[tuple[float, int]], most: int
) -> None:
    rows = [(sample("p", n, "w " * words), reward) for n, (reward, words) in enumerate(drawn)]
    found, counts = by_verdict(rows, config(most=most))
    assert len(found) <= most
    assert len({n for pair in found for n in pair}) == 2 * len(found), "no sample is in two pairs"
    for better, worse in found:
        assert drawn[better][0] > drawn[worse][0]
        lengths = drawn[better][1], drawn[worse][1]
        assert max(lengths) - min(lengths) <= 0.2 * max(lengths)
    assert sum(counts.values()) == (0 if found or not rows else 1), "what gives no pair is counted"


def test_what_cannot_be_learned_from_is_in_no_pair() -> None:
    good = sample("p", 0)
    for bad in (
        sample("p", 1, cut_off=True),
        sample("p", 1, text=" "),
        sample("p", 1, text=None, error="the prompt is too long"),
    ):
        found, counts = by_verdict([(good, 1.0), (bad, 0.0)], config())
        assert found == [] and counts == {FEW: 1}
    found, _ = by_verdict([(good, 1.0), (sample("p", 1), None)], config())
    assert found == []


def test_each_prompt_without_a_pair_has_its_reason() -> None:
    rows = [
        *[(sample("same", n), 1.0) for n in range(3)],
        (sample("long", 0, "w " * 30), 1.0),
        (sample("long", 1, "w " * 3), 0.0),
        (sample("one", 0), 1.0),
    ]
    found, counts = by_verdict(rows, config())
    assert found == []
    assert counts == {
        "prompts whose samples have one verdict": 1,
        "prompts whose samples differ too much in length": 1,
        FEW: 1,
    }


def test_answers_of_two_models_are_joined_by_prompt_and_number_not_by_position() -> None:
    chosen = [sample(name, 0, f"good {name}") for name in "abcd"]
    rejected = [sample(name, 0, f"bad {name}") for name in "dcb"]
    rejected[0]["cut_off"] = True
    rejected[1]["text"] = "good c"
    counts: Counter[str] = Counter()
    found = list(pairs.joined(chosen, rejected, counts))
    assert [(a["text"], b["text"]) for a, b in found] == [("good b", "bad b")]
    assert counts == {
        "prompts without a usable rejected answer": 2,
        "prompts with two equal answers": 1,
    }
