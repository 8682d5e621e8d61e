"""Answers are those of the Parquet files: recomputed here from rows, and by hand-made studies."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_ray.errors import InputError
from w2s_ray.report.answer_tables import accuracy_table
from w2s_ray.report.answers import (
    TREATMENTS,
    Answer,
    answer,
    baseline_of,
    differences,
    treatment_differences,
)
from w2s_ray.report.row_scores import RowScores, row_scores
from w2s_ray.report.sentences import conclusions
from w2s_ray.report.settings import Setting, settings_of, units
from w2s_ray.store.artifacts import Store
from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.results import read_results

ROWS = 60


def rows_of(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_results(store, "tiny").to_pylist()
    return rows


def answers(store: Store) -> list[Answer]:
    with row_scores(store, "tiny") as scores:
        return [answer(of, scores) for of in settings_of(rows_of(store))]


def test_a_setting_is_all_cells_that_differ_only_in_seeds_and_in_what_was_chosen(
    store: Store,
) -> None:
    found = settings_of(rows_of(store))
    assert [(of.name, of.axes["noise_ratio"], len(of.rows)) for of in found] == [
        ("length", 0.0, 3),
        *((loss, noise, 3) for loss in ("forward_kl", "reverse_kl") for noise in (0.0, 0.25)),
    ]
    assert all(row["selected"] for of in found for row in of.rows)
    assert all("learning_rate" not in of.axes for of in found)


def test_accuracies_and_the_recovered_gap_are_those_of_results(store: Store) -> None:
    for of in answers(store):
        rows = of.setting.rows
        assert of.seeds == (0, 1, 2) and of.missing == 0 and of.rows == ROWS
        for role in ("weak", "student", "ceiling"):
            score = getattr(of, role)
            expected = np.mean([row[f"{role}_accuracy"] for row in rows])
            assert score.estimate.mean == pytest.approx(expected)
            assert score.interval.low <= expected <= score.interval.high
        assert of.by_seed == pytest.approx([row["student_accuracy"] for row in rows])
        assert of.summary is not None and of.weak and of.student and of.ceiling and of.recovered
        assert of.summary.median == pytest.approx(np.median(of.by_seed))
        gap = of.ceiling.estimate.mean - of.weak.estimate.mean
        gain = of.student.estimate.mean - of.weak.estimate.mean
        assert of.recovered.gap == pytest.approx(gap)
        assert of.recovered.value == pytest.approx(gain / gap if gap else None)


def test_rows_of_one_prompt_are_not_independent(store: Store) -> None:
    """The variance is that of the sums of each prompt's two rows."""
    with row_scores(store, "tiny") as scores:
        (first, *_) = (of for of in settings_of(rows_of(store)) if not of.axes["control"])
        found = answer(first, scores).student
        right = np.stack([scores.right(row["key"], "pairs") for row in first.rows])
        prompts = scores.rows("pairs").prompt_ids.to_pylist()
    sums = np.array(
        [
            [of[[p == prompt for p in prompts]].mean() for prompt in sorted({*prompts})]
            for of in right
        ]
    )
    seeds, groups = sums.shape
    assert groups == ROWS / 2
    grand = sums.mean()
    of_groups = seeds * ((sums.mean(axis=0) - grand) ** 2).sum() / (groups - 1)
    of_seeds = groups * ((sums.mean(axis=1) - grand) ** 2).sum() / (seeds - 1)
    rest = ((sums - sums.mean(axis=0) - sums.mean(axis=1)[:, None] + grand) ** 2).sum()
    rest /= (groups - 1) * (seeds - 1)
    assert found is not None
    variance = (of_groups + max(of_seeds - rest, 0.0)) / (groups * seeds)
    assert found.estimate.variance == pytest.approx(variance)


def test_a_difference_is_paired_by_rows_and_seeds_at_equal_other_axes(store: Store) -> None:
    results = rows_of(store)
    settings = settings_of(results)
    assert baseline_of(settings) == "forward_kl"
    with row_scores(store, "tiny") as scores:
        found = differences(settings, scores, "forward_kl", margin=0.01)
        assert [(of.setting.axes["noise_ratio"], of.seeds) for of in found] == [
            (0.0, (0, 1, 2)),
            (0.25, (0, 1, 2)),
        ]
        for of in found:
            ours, theirs = (
                np.stack([scores.right(row["key"], "pairs") for row in side.rows])
                for side in (of.setting, of.baseline)
            )
            estimate = of.comparison.estimate
            assert estimate.mean == pytest.approx((ours - theirs).mean())
            learned = [row["learned_label_confidence"] for row in of.baseline.rows]
            assert of.confidence == pytest.approx(np.mean(learned))
            variance = of.components.variance(ROWS / 2, 3)
            assert variance >= estimate.variance - 1e-12  # equal unless a component was below 0
            assert of.comparison.adjusted >= of.comparison.p_value
            assert of.discordant is None and of.dropped == 0


def test_what_is_not_finished_is_counted_and_never_averaged_unsaid(store: Store) -> None:
    results = rows_of(store)
    lost = next(row for row in results if row["loss"] == "reverse_kl" and row["selected"])
    lost |= {"status": "failed"}
    settings = settings_of(results)
    with row_scores(store, "tiny") as scores:
        (incomplete,) = (found for of in settings if (found := answer(of, scores)).missing)
        (other, _) = sorted(
            differences(settings, scores, "forward_kl", 0.01), key=lambda of: len(of.seeds)
        )
    assert incomplete.missing == 1 and len(incomplete.seeds) == 2
    assert other.dropped == 1 and other.seeds == incomplete.seeds


def test_one_seed_has_an_exact_test_and_no_seeds_to_speak_of(store: Store) -> None:
    settings = settings_of(row for row in rows_of(store) if row["seed"] == 1)
    with row_scores(store, "tiny") as scores:
        found = differences(settings, scores, "forward_kl", 0.01)
        for of in found:  # rows of one prompt are not independent, as that test needs
            assert of.discordant is None and not of.components.has_seeds
    right = {key: (np.random.default_rng(n).random(40) < 0.7) * 1.0 for n, key in enumerate("ab")}
    plain = treated("none", "none", {(0, 0): "a"})
    probe = treated("probe", "none", {(0, 0): "b"})
    alone: Any = FixedScores(right)
    (of,) = treatment_differences([plain, probe], alone, 0.01)
    assert of.discordant is not None
    assert of.discordant.gained == int(((right["b"] == 1) & (right["a"] == 0)).sum())
    assert of.comparison.p_value == of.discordant.p_value


def test_students_of_one_weak_model_are_one_unit_where_weak_seeds_vary() -> None:
    rows = [
        {"seed": seed, "weak_seed": weak, "weak_key": f"w{weak}"}
        for seed in (0, 1, 2)
        for weak in (5, 6)
    ]
    kind, found = units(rows)
    assert kind == "weak seed"
    assert [(unit.name, len(unit.rows)) for unit in found] == [(5, 3), (6, 3)]
    kind, found = units([row for row in rows if row["weak_seed"] == 5])
    assert kind == "seed" and [unit.name for unit in found] == [0, 1, 2]


def test_an_unfinished_setting_has_no_numbers() -> None:
    row = {"status": "pending", "seed": 0, "weak_key": "w", "key": "s", "ceiling_key": "c"}
    found = answer(Setting({"data": "d"}, (row,)), RowScores("s", None, {}))  # type: ignore[arg-type]
    assert found.missing == 1 and found.student is None and found.recovered is None


def test_models_scored_on_other_rows_are_refused(store: Store, tmp_path: Path) -> None:
    file = pq.ParquetFile(Path(store.location("predictions/tiny.parquet")))
    tables = [file.read_row_group(index) for index in range(file.num_row_groups)]
    other = tables[1]
    ids = pa.array([f"x{value}" for value in other["row_id"].to_pylist()])
    tables[1] = other.set_column(other.column_names.index("row_id"), "row_id", ids)
    path = tmp_path / "changed.parquet"
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        for table in tables:
            writer.write_table(table.cast(file.schema_arrow))
    keys = [table["key"][0].as_py() for table in tables]
    with path.open("rb") as changed:
        scores = RowScores("tiny", pq.ParquetFile(changed), {k: i for i, k in enumerate(keys)})
        scores.right(keys[0], "pairs")
        with pytest.raises(InputError, match=f"model {keys[1]} was scored on other test rows"):
            scores.right(keys[1], "pairs")


def test_a_study_that_is_not_there_is_said_in_one_line(store: Store) -> None:
    missing = pytest.raises(InputError, match=r"study 'other': .*run the study again")
    with missing, row_scores(store, "other"):
        pass


class FixedScores:
    """Scores by key, in place of a table: of 40 rows of one data set."""

    def __init__(self, right: dict[str, np.ndarray[Any, Any]]) -> None:
        self._right = right

    def has(self, key: str) -> bool:
        return key in self._right

    def right(self, key: str, data: str) -> np.ndarray[Any, Any]:
        return self._right[key]

    def rows(self, data: str) -> Any:
        return SimpleNamespace(groups=None, labels=range(40))

    def check(self, key: str, data: str, accuracy: float) -> None:
        assert accuracy == self._right[key].mean()


def treated(relabel: str, weighed: str, keys: dict[tuple[int, int], str]) -> Setting:
    """A setting whose cells have these keys by seeds of weak model and student."""
    axes = {name: plain for of in TREATMENTS for name, plain in of.items()}
    axes |= {"data": "d", "weak": "a", "strong": "b", "chain": "", "combine": "mean"}
    axes |= {"trainable": "last_layer", "loss": "forward_kl", "loss_parameters": "{}"}
    axes |= {"control": "", "relabel": relabel, "example_weight": weighed}
    rows = tuple(
        {
            **{"status": "done", "weak_seed": weak, "seed": seed, "weak_key": f"w{weak}"},
            **{"key": key, "learned_label_confidence": 0.2},
        }
        for (weak, seed), key in keys.items()
    )
    return Setting(axes, rows)


def test_a_treatment_is_compared_with_the_same_seeds_without_it() -> None:
    rng = np.random.default_rng(0)
    right = {key: (rng.random(40) < 0.7).astype(float) for key in "abcdefg"}
    plain = treated("none", "none", {(0, 0): "a", (1, 1): "b", (9, 0): "c"})
    probe = treated("probe", "none", {(0, 0): "d", (1, 1): "e"})
    both = treated("probe", "confidence", {(0, 0): "f", (1, 1): "g"})
    scores: Any = FixedScores(right)
    found = treatment_differences([plain, probe, both], scores, 0.01)
    assert [(of.setting, of.baseline) for of in found] == [(probe, plain), (both, probe)]
    first, second = found
    expected = np.mean([right["d"] - right["a"], right["e"] - right["b"]])
    assert first.comparison.estimate.mean == pytest.approx(expected)
    assert (first.seeds, first.dropped) == ((0, 1), 1)  # the cell of weak seed 9 has no partner
    expected = np.mean([right["f"] - right["d"], right["g"] - right["e"]])
    assert second.comparison.estimate.mean == pytest.approx(expected)


def a_setting(right: dict[str, Any], cells: Sequence[tuple[int, int]]) -> Setting:
    """A setting of cells by seeds of weak model and student, whose models are w0, s00, c0, …"""
    rows = []
    for weak, seed in cells:
        keys = {"weak": f"w{weak}", "student": f"s{weak}{seed}", "ceiling": f"c{seed}"}
        means = {f"{role}_accuracy": right[k].mean() for role, k in keys.items() if k in right}
        rows.append(
            {"key": keys["student"], "weak_key": keys["weak"], "ceiling_key": keys["ceiling"]}
            | {"weak_seed": weak, "seed": seed, "status": "done", "selection_missing": ""}
            | dict.fromkeys(f"{role}_accuracy" for role in keys)
            | means
            | {"test_rows": 40, "control": ""}
        )
    axes = {"data": "d", "weak": "a", "strong": "b", "chain": "", "combine": "mean", "control": ""}
    axes |= {"trainable": "last_layer", "loss": "reverse_kl", "loss_parameters": "{}"}
    return Setting(axes, tuple(row | {"selected_by": None} for row in rows))


def models(weak: int, seeds: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    names = [f"w{w}" for w in range(weak)] + [f"c{s}" for s in range(seeds)]
    names += [f"s{w}{s}" for w in range(weak) for s in range(seeds)]
    return {name: (rng.random(40) < 0.7).astype(float) for name in names}


@pytest.mark.parametrize(
    ("cells", "unit", "count", "shares"),
    [
        ([(0, 0), (1, 1), (2, 2)], "seed", 3, False),
        ([(0, 0), (0, 1), (0, 2)], "seed", 3, False),  # one weak model, which is said elsewhere
        ([(0, 0), (1, 0), (2, 0)], "weak seed", 3, True),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], "weak seed", 2, False),  # crossed: both are measured
        ([(0, 0), (0, 1), (1, 0), (1, 2)], "weak seed", 2, True),
        ([(0, 0), (0, 1), (1, 2), (1, 3)], "weak seed", 2, False),  # nested
    ],
)
def test_students_of_one_weak_model_are_one_unit_and_shared_seeds_are_said(
    cells: list[tuple[int, int]], unit: str, count: int, shares: bool
) -> None:
    right = models(3, 4)
    scores: Any = FixedScores(right)
    found = answer(a_setting(right, cells), scores)
    assert (found.unit, len(found.seeds), found.shares_seeds) == (unit, count, shares)
    assert found.one_weak_model == (len({weak for weak, _ in cells}) == 1)
    table = accuracy_table([found], controls=False, query="")
    assert any("intervals hold for these seeds alone" in note for note in table.notes) == shares


def test_a_student_without_a_ceiling_keeps_its_score() -> None:
    right = models(3, 3)
    scores: Any = FixedScores(right)
    cells = [(0, 0), (1, 1), (2, 2)]
    whole = answer(a_setting(right, cells), scores)
    for name in ("c0", "c1", "c2"):
        del right[name]
        found = answer(a_setting(right, cells), scores)
        assert found.student is not None and whole.student is not None
        assert found.student.estimate[:3] == pytest.approx(whole.student.estimate[:3])
        assert found.incomplete == 3 - len([n for n in right if n.startswith("c")])
        assert found.missing == 0
    assert found.ceiling is None and found.recovered is None
    text = " ".join(conclusions([found], [], [], 0.01))
    assert "no finished cell has weak model, student and ceiling" in text


def test_settings_with_the_same_students_are_one() -> None:
    row = {axis.name: None for axis in AXES} | {"selected_over": "", "control": ""}
    row |= {"key": "k", "weak_key": "w", "noise_ratio": 0.0, "seed": 0}
    rows = [row | {"noise_strength": strength} for strength in (-1.0, 0.5)]
    (only,) = settings_of(rows)
    assert (only.axes["noise_strength"], only.same) == (-1.0, 1)
    rows[1]["key"] = "other"
    assert [of.same for of in settings_of(rows)] == [0, 0]
