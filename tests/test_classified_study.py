"""A study whose rewards are those of a classifier, and that another one audits."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.testing.text_studies import classified_spec
from w2s_ray.plan.build import build
from w2s_ray.report.page import Table
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.spec.loading import load
from w2s_ray.steps.classifier import read_classifier
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main
from w2s_ray.tasks.beginnings import PARTS, labelled_texts, prompts_of_beginnings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classified")
    assert main([str(classified_spec(folder)), "--local"]) == 0
    return folder


@pytest.mark.long
def test_rewards_and_audits_are_those_of_the_two_stored_classifiers(study: Path) -> None:
    plan, store = build(load(study / "spec.yaml")), Store.open(str(study / "store"))
    store.finished()
    kinds = {}
    for step in plan:
        if step.kind.name == "classifier":
            artifact = store.artifact(step.key)
            kinds[step.config.part] = read_classifier(artifact)  # type: ignore[attr-defined]
            assert artifact.record["metrics"]["accuracy"] > 0.8
    assert {part: of.kind for part, of in kinds.items()} == {
        "reward": "logistic",
        "audit": "naive_bayes",
    }
    rows = pq.read_table(study / "store/samples/tiny-text.parquet").to_pylist()
    assert {row["prompt"].split()[-1] for row in rows} == {"is"}
    for part, column in (("reward", "reward"), ("audit", "audit_reward")):
        whole = [f"{row['prompt']} {row['text'].strip()}" for row in rows]
        assert [row[column] for row in rows] == (kinds[part].log_odds(whole) > 0).tolist()


@pytest.mark.long
def test_the_table_has_both_rates_and_the_report_sets_them_side_by_side(study: Path) -> None:
    results = pq.read_table(study / "store/results/tiny-text.parquet").to_pylist()
    samples = pq.read_table(study / "store/samples/tiny-text.parquet").to_pylist()
    page = study_page(Store.open(str(study / "store")), "tiny-text", Choices())
    blocks = [block for section in page.sections for block in section.blocks]
    (audit,) = [of for of in blocks if isinstance(of, Table) and of.name.startswith("audit")]
    shown = {row[0].text: (row[1].value, row[2].value) for row in audit.rows}
    for row in results:
        own = [of for of in samples if of["key"] == row["key"]]
        rates = tuple(np.mean([of[name] for of in own]) for name in ("reward", "audit_reward"))
        assert shown[row["method"]] == pytest.approx(rates)
        assert row["rate"] == pytest.approx(rates[0])
        if row["method"] == "best_of_n":  # of all samples another rate than of those chosen
            assert row["audit_rate"] is None
        else:
            assert row["audit_rate"] == pytest.approx(rates[1])


def test_no_classifier_knows_the_texts_of_the_prompts_or_of_the_other(tmp_path: Path) -> None:
    prompts = load(classified_spec(tmp_path)).prompts  # type: ignore[union-attr]
    parts = {part: {of.text for of in labelled_texts(prompts, part)} for part in PARTS}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 240
    for split in prompts_of_beginnings(prompts).values():
        for prompt in split:
            assert any(text.startswith(prompt.prompt) for text in parts["prompts"])
            assert not any(text.startswith(f"{prompt.prompt} ") for text in parts["reward"])


def test_more_test_prompts_train_no_classifier_and_no_model_anew(tmp_path: Path) -> None:
    before = build(load(classified_spec(tmp_path))).steps
    after = build(load(classified_spec(tmp_path, sizes={"test": 9}))).steps
    new = {after[key].kind.name for key in after.keys() - before.keys()}
    assert new == {"prompts", "generate", "judge", "perplexity"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": {"wanted": "good"}}, "expected one of several labels of the texts: 0, 1"),
        ({"classifier": {"label": "stars"}}, "stars: given None, expected a text or a whole"),
        ({"sizes": {"align": 100}}, "expected at most"),
        ({"sizes": {"transfer": 2}}, "which knows no families of prompts"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(classified_spec(tmp_path, **changes)), "--local"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
