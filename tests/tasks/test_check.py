"""Verdicts by rules and by the researcher's own Python, which may raise or never end."""

import pytest

from w2s_ray.errors import InputError
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.check import Verdict, check_checker, checker_identity, checker_of
from w2s_ray.tasks.prompts import prompt_tables

SOURCE = """
import os, sys, time
import numpy as np

def contains(check, prompt, text):
    print("not a verdict")
    return check.get("word", "x") in text

def whatever(check, prompt, text):
    if text == "loop":
        while True:
            pass
    if text == "sleep":
        time.sleep(1000)
    if text == "exit":
        sys.exit(3)
    if text == "die":
        os._exit(7)
    if text == "numpy":
        return np.float32(0.5)
    if text == "numpy bool":
        return np.bool_(True)
    if text == "nan":
        return float("nan")
    if text == "prompt":
        return prompt == "p"
    return {"half": 0.5, "two": 2.0, "text": "yes", "none": None, "one": 1, "huge": 10**400}[text]

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_checks.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "prompts.jsonl").write_text(
        "\n".join(f'{{"prompt": "{n}", "check": {{"word": "w"}}}}' for n in range(9)), "utf-8"
    )

    def make(name, seconds=20.0, module="own_checks"):
        fields = {"checker": f"{module}:{name}", "timeout_seconds": seconds}
        source = str(tmp_path / "prompts.jsonl")
        sizes = {"align": 3, "train": 3, "test": 3}
        return Prompts.model_validate({"source": source, "sizes": sizes, **fields})

    return make


def test_rules_give_one_or_zero():
    sizes = {"align": 1, "train": 1, "test": 1}
    spec = Prompts.model_validate({"sizes": sizes})
    with checker_of(spec) as checker:
        assert checker({"family": "no_commas"}, "p", "a; b") == Verdict(1.0, None)
        assert checker({"family": "no_commas"}, "p", "a, b") == Verdict(0.0, None)


def test_own_checker_gives_rewards_and_its_mistakes_are_errors_of_one_answer(own):
    with checker_of(own("whatever")) as checker:

        def verdict(text):
            return checker({}, "p", text)

        assert verdict("half") == Verdict(0.5, None)
        assert verdict("one") == Verdict(1.0, None)
        assert verdict("numpy") == Verdict(0.5, None)
        assert verdict("numpy bool") == Verdict(1.0, None)
        assert verdict("prompt") == Verdict(1.0, None)
        for text, shown in {"two": "2.0", "text": "'yes'", "none": "None", "nan": "nan"}.items():
            reward, error = verdict(text)
            assert reward is None
            assert error == (
                f"the checker returned {shown}, expected a bool or a number from 0 to 1"
            )
        assert verdict("huge").reward is None
        assert verdict("unknown") == Verdict(None, "the checker raised KeyError: 'unknown'")
        assert verdict("exit") == Verdict(None, "the checker raised SystemExit: 3")
        assert verdict("die") == Verdict(None, "the checker's process ended with exit code 7")
        assert verdict("half") == Verdict(0.5, None)


@pytest.mark.parametrize("text", ["loop", "sleep"])
def test_a_checker_that_does_not_end_is_stopped_and_the_next_answer_is_checked(own, text):
    with checker_of(own("whatever", seconds=1.0)) as checker:
        assert checker({}, "p", "half").reward == 0.5
        reward, error = checker({}, "p", text)
        assert (reward, error) == (None, "the checker did not end within 1 seconds")
        assert checker({}, "p", "half").reward == 0.5


def test_long_and_foreign_texts_arrive_whole(own):
    with checker_of(own("contains")) as checker:
        text = "ä\n\ud800\x00" * 300_000
        assert checker({"word": "\ud800\x00ä"}, "p", text) == Verdict(1.0, None)
        assert checker({"word": "no"}, "p", text) == Verdict(0.0, None)
        assert checker({}, "p", "x") == Verdict(1.0, None)


def test_a_check_may_be_any_object_of_the_checker(own):
    tables = prompt_tables(own("contains"))
    assert tables["test"].column("check").to_pylist() == ['{"word": "w"}'] * 3


@pytest.mark.parametrize(
    ("module", "name", "reason"),
    [
        ("own_checks", "contain", "has no attribute 'contain'"),
        ("own_cheks", "contains", "No module named 'own_cheks'"),
        ("own_checks", "number", "number is not a function"),
        ("broken", "check", "SyntaxError"),
        ("exits", "check", "SystemExit"),
        ("dies", "check", "process ended with exit code 5"),
    ],
)
def test_what_cannot_be_imported_is_one_line(own, tmp_path, module, name, reason):
    (tmp_path / "broken.py").write_text("def check(:\n", encoding="utf-8")
    (tmp_path / "exits.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    (tmp_path / "dies.py").write_text("import os\nos._exit(5)\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"checker: given {module}:{name}, which cannot") as error:
        check_checker(own(name, module=module))
    assert reason in str(error.value)


def test_identity_follows_the_checkers_source(own, tmp_path):
    before = checker_identity("own_checks:contains")
    assert before == checker_identity("own_checks:contains")
    (tmp_path / "own_checks.py").write_text(SOURCE + "# changed\n", encoding="utf-8")
    assert checker_identity("own_checks:contains")["source"] != before["source"]
    with pytest.raises(InputError, match="expected a Python file"):
        checker_identity("time:time")
