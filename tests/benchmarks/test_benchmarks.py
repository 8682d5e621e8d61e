"""The suite itself: its arithmetic, its page, its long-lived sides. Nothing here is timed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import ROWS, main
from benchmarks.measure import Row, alternate, share, times_faster
from benchmarks.options import Options
from benchmarks.pairs import FOLDER
from benchmarks.sides import REPOSITORY

RUN = {
    "date": "2026-11-20",
    "commit": "abc1234",
    "hardware": "a processor, 2 cores",
    "versions": {"python": "3.11", "trl": "1.16.0"},
    "threads": 2,
    "rounds": 3,
    "command": "python -m benchmarks",
}
needs_data = pytest.mark.skipif(not FOLDER.exists(), reason="the real pairs are not here")


def row(*values: float, **changes: object) -> Row:
    fields = {"name": "speed", "measure": "pairs/s", "against": "another", "target": 3.0}
    return Row(values=values, **{**fields, **changes})  # type: ignore[arg-type]


def test_sides_alternate_and_each_round_has_its_own_ratio():
    calls: list[str] = []
    seconds = {"ours": iter([2.0, 1.0, 4.0]), "other": iter([6.0, 5.0, 8.0])}

    def side(name: str):
        def run() -> float:
            calls.append(name)
            return next(seconds[name])

        return run

    rounds = alternate(3, side("ours"), side("other"))
    assert calls == ["ours", "other"] * 3
    assert times_faster(rounds) == [3.0, 5.0, 2.0]
    assert share(rounds) == pytest.approx([1 / 3, 1 / 5, 1 / 2])


def test_a_figure_is_the_median_and_is_held_against_its_target():
    assert row(2.0, 9.0, 3.5).figure == 3.5
    assert row(2.0, 9.0, 3.5).reached is True
    assert row(2.0, 9.0, 2.5).reached is False
    assert row(2.0, 9.0, 2.5, at_least=False).reached is True
    assert row(2.0, target=None).reached is None


def test_the_table_says_plainly_what_is_below_target():
    assert page.line(row(2.0, 2.5, 4.0)) == (
        "pairs/s", "another", "2.50 ×", "2.00 – 4.00", "≥ 3 ×", "**below target**"
    )  # fmt: skip
    counted = row(0.251, target=0.27, at_least=False, counted=True)
    assert page.line(counted)[2:] == ("0.251 ×", "a count", "≤ 0.27 ×", "reached")


def test_a_run_of_some_rows_leaves_the_others_on_the_page(tmp_path: Path):
    text, results = tmp_path / "benchmarks.md", tmp_path / "benchmarks.json"
    text.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.save(results, {"a": row(4.0, measure="one"), "b": row(4.0, measure="two")}, RUN)
    page.save(results, {"b": row(5.0, measure="two")}, {**RUN, "date": "2026-11-21"})
    page.write_page(text, results)
    written = text.read_text()
    assert written.startswith(f"before\n{page.BEGIN}\n2026-11-21") and "old" not in written
    assert written.endswith(f"{page.END}\nafter\n")
    assert written.index("| two | another | 5.00 × |") < written.index("| one | another | 4.00 × |")
    assert "a processor, 2 cores; python 3.11, trl 1.16.0; 2 threads, 3 rounds" in written
    page.write_page(text, results)
    assert text.read_text() == written


def test_a_page_without_markers_is_refused(tmp_path: Path):
    text, results = tmp_path / "benchmarks.md", tmp_path / "benchmarks.json"
    text.write_text("no markers")
    page.save(results, {"a": row(4.0)}, RUN)
    with pytest.raises(ValueError, match="expected the markers"):
        page.write_page(text, results)


def test_the_page_of_the_project_holds_its_results():
    """What the JSON file says is what the page shows."""
    text, results = REPOSITORY / "docs/benchmarks.md", REPOSITORY / "docs/benchmarks.json"
    if not results.exists():
        pytest.skip("not measured yet")
    assert page.markdown(json.loads(results.read_text())) in text.read_text()


def test_an_unknown_row_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    assert main(["--rows", "heads,speed"]) == 2
    output = capsys.readouterr().err
    assert "given 'speed'" in output and "long_prompts" in output


def test_rows_come_in_as_a_table_and_a_quick_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(ROWS, "tokens", lambda options: iter([row(2.0, note=str(options.rounds))]))
    where = ["--page", str(tmp_path / "page.md"), "--results", str(tmp_path / "results.json")]
    assert main(["--rows", "tokens", "--quick", *where]) == 0
    assert "below target" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    (tmp_path / "page.md").write_text(f"{page.BEGIN}\n{page.END}\n")
    assert main(["--rows", "tokens", "--rounds", "7", *where]) == 0
    written = (tmp_path / "page.md").read_text()
    assert "| pairs/s | another | 2.00 × | 2.00 – 2.00 | ≥ 3 × | **below target** |" in written
    assert "* *pairs/s*: 7." in written and "--rows tokens --rounds 7" in written


@needs_data
def test_both_sides_of_the_training_rows_get_the_same_pairs_in_the_same_batches(tmp_path: Path):
    import pyarrow.parquet as pq

    from benchmarks.pairs import batches, real_pairs, text_ids, tokenised
    from benchmarks.training import write_pairs

    pairs = real_pairs().slice(0, 80)
    tokens = tokenised(pairs)
    visits = batches(tokens, 3)
    assert len({row for rows in visits for row in rows.tolist()}) == 48
    write_pairs(tmp_path / "pairs.parquet", pairs, tokens, visits, by_length=True)
    written = pq.read_table(tmp_path / "pairs.parquet").to_pydict()
    labels = pairs["label"].to_pylist()
    for turn, rows in enumerate(visits):
        place = slice(16 * turn, 16 * turn + 16)
        given = zip(written["chosen_ids"][place], written["rejected_ids"][place], strict=True)
        expected = []
        for one in rows.tolist():
            first, second = (ids.tolist() for ids in text_ids(tokens, one))
            expected.append((first, second) if labels[one] else (second, first))
        assert sorted(given) == sorted(expected)


@needs_data
def test_long_prompts_are_about_twice_an_answer():
    from benchmarks.pairs import long_prompt_pairs, real_pairs, tokenised

    tokens = tokenised(long_prompt_pairs())
    assert tokens.row_ids == real_pairs()["row_id"].to_pylist()
    prompts, answers = tokens.segments[:, 0], tokens.segments[:, 1:].mean(axis=1)
    assert 1.8 < prompts.sum() / answers.sum() < 2.4


@needs_data
def test_packing_computes_little_more_than_each_token_once(tmp_path: Path):
    from benchmarks.training import tokens_computed

    (counted,) = tokens_computed(Options(scratch=tmp_path))
    assert counted.reached, counted.note


@pytest.mark.long
def test_packed_pairs_agree_with_separate_rows_in_a_script_that_needs_little():
    """The script of GPU machines, on a CPU, where of this project it loads one module."""
    code = (
        "import runpy, sys; sys.modules['pyarrow'] = sys.modules['pydantic'] = None; "
        "sys.argv = ['gpu_pairs.py', '--tiny']\n"
        "try: runpy.run_path('benchmarks/gpu_pairs.py', run_name='__main__')\n"
        "finally: print(*sorted(n for n in sys.modules if n.startswith('w2s_ray')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, output, modules = done.stdout.splitlines()
    assert max(json.loads(output)["long prompts"]["apart"].values()) < 1e-4
    assert modules.split() == [
        "w2s_ray",
        "w2s_ray.finite",
        "w2s_ray.models",
        "w2s_ray.models.finite_weights",
        "w2s_ray.models.packed_attention",
        "w2s_ray.models.packed_layout",
    ]
