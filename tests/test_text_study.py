"""A whole study of generated text, with random models of bytes and a checker of our own."""

from collections import Counter
from math import exp
from pathlib import Path
from statistics import fmean

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.testing.text_studies import text_spec
from w2s_ray.plan.build import build
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load
from w2s_ray.spec.messages import SpecError
from w2s_ray.spec.methods import METHODS, WITH_ALPHA
from w2s_ray.store.__main__ import main as store_command
from w2s_ray.study import main

pytestmark = pytest.mark.long

GRID = {
    "pair": [["weak", "strong"]],
    "method": [name for name in METHODS if name not in ("weak_before", "weak", "ceiling")],
    "alpha": [0.0, 0.4],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of all methods."""
    folder = tmp_path_factory.mktemp("text")
    assert main([str(text_spec(folder, grid=GRID)), "--local"]) == 0
    return folder


def test_every_method_has_a_row_with_its_rate(study: Path) -> None:
    rows = pq.read_table(study / "store/results/tiny-text.parquet").to_pylist()
    expected = {(m, a) for m in METHODS for a in (GRID["alpha"] if m in WITH_ALPHA else [None])}
    assert {(row["method"], row["alpha"]) for row in rows} == expected
    assert {row["status"] for row in rows} == {"done"}
    assert all(0.0 <= row["rate"] <= 1.0 and row["failed_checks"] == 0 for row in rows)
    by_method = {row["method"]: row for row in rows}
    weak, ceiling = by_method["weak"]["rate"], by_method["ceiling"]["rate"]
    for row in rows:
        assert (row["weak_rate"], row["ceiling_rate"]) == (weak, ceiling)
        if weak != ceiling:
            assert row["pgr"] == pytest.approx((row["rate"] - weak) / (ceiling - weak))
    assert by_method["best_of_n"]["rate"] >= by_method["untrained"]["rate"]


def test_rates_can_be_recomputed_from_the_samples(study: Path) -> None:
    results = pq.read_table(study / "store/results/tiny-text.parquet").to_pylist()
    samples = pq.read_table(study / "store/samples/tiny-text.parquet")
    for row in results:
        own = samples.filter(pc.field("key") == row["key"]).filter(pc.field("split") == "test")
        per_prompt = own.group_by("prompt_id").aggregate([("reward", "mean")])
        assert pc.mean(per_prompt["reward_mean"]).as_py() == pytest.approx(row["rate"])
        assert own.num_rows == 6 * (1 if row["method"] == "best_of_n" else 2)
        assert set(own["prompt_id"].to_pylist()) == set(per_prompt["prompt_id"].to_pylist())


def test_perplexities_can_be_recomputed_from_the_samples(study: Path) -> None:
    results = pq.read_table(study / "store/results/tiny-text.parquet").to_pylist()
    samples = pq.read_table(study / "store/samples/tiny-text.parquet").to_pylist()
    for row in results:
        own = [of for of in samples if of["key"] == row["key"] and of["split"] == "test"]
        nats = [of["outside_log_prob"] / of["outside_tokens"] for of in own if of["outside_tokens"]]
        assert all(bool(of["outside_tokens"]) == bool(of["text"]) for of in own)
        if row["method"] == "best_of_n":
            assert row["perplexity"] is None and nats
        else:
            assert row["perplexity"] == pytest.approx(exp(-fmean(nats)))


def test_the_model_moves_away_from_its_reference_only_if_something_is_trained(study: Path) -> None:
    rows = pq.read_table(study / "store/results/tiny-text.parquet").to_pylist()
    for row in rows:
        is_trained = row["method"] not in ("weak_before", "untrained", "best_of_n")
        assert (row["log_ratio"] is not None) == is_trained


def test_a_second_run_computes_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (study / "store/results/tiny-text.parquet").read_bytes()
    assert main([str(study / "spec.yaml"), "--local"]) == 0
    assert "0 steps to do" in capsys.readouterr().out
    assert (study / "store/results/tiny-text.parquet").read_bytes() == before


def test_another_store_takes_the_study_in(study: Path, tmp_path: Path) -> None:
    archive, other = str(tmp_path / "study.tar"), tmp_path / "other"
    assert store_command([str(study / "store"), "export", "tiny-text", archive]) == 0
    assert store_command([str(other), "import", archive]) == 0
    for table in ("results", "samples"):
        name = f"{table}/tiny-text.parquet"
        assert (other / name).read_bytes() == (study / "store" / name).read_bytes()


def test_the_weak_model_is_aligned_once_for_all_methods_and_alphas(tmp_path: Path) -> None:
    grid = {**GRID, "alpha": [0.0, 0.2, 0.4, 0.6, 1.0]}
    counts = build(load(text_spec(tmp_path, grid=grid))).count()
    assert counts["align"] == 2  # the weak model and the ceiling
    assert counts["pairs"] == 1 + 5  # of its own samples, and ConG's for each α
    assert counts["finetune"] == 3 + 5
    assert counts["prefer"] == 1 + 5


def test_learning_rates_are_an_axis_that_moves_no_key_of_others(tmp_path: Path) -> None:
    before = build(load(text_spec(tmp_path / "one", grid=GRID))).steps
    grid = {**GRID, "learning_rate_factor": [1.0, 3.0]}
    plan = build(load(text_spec(tmp_path / "two", grid=grid)))
    assert before.keys() <= plan.steps.keys()
    new = Counter(of.kind.name for key, of in plan.steps.items() if key not in before)
    assert new["align"] == 1  # the ceiling; the weak model, which teaches all, has one rate
    assert new["finetune"] == 3 + 2 and new["prefer"] == 1 + 2
    # three times 1e-3 is what another spec writes as 3e-3
    faster = {stage: {"learning_rate": 3e-3, "batch_size": 4} for stage in ("finetune", "prefer")}
    written = build(load(text_spec(tmp_path / "three", grid=GRID, **faster))).steps
    tuned = {key for key, of in written.items() if of.kind.name == "finetune"}
    assert tuned <= plan.steps.keys()


def test_a_ceiling_that_is_the_teacher_too_has_its_learning_rate(tmp_path: Path) -> None:
    grid = {"pair": [["weak", "weak"]], "method": ["weak_sft"], "learning_rate_factor": [1.0, 3.0]}
    plan = build(load(text_spec(tmp_path, grid=grid)))
    assert plan.count()["align"] == 1
    ceilings = [cell for cell in plan.cells if cell.values["method"] == "ceiling"]
    assert [cell.values["learning_rate_factor"] for cell in ceilings] == [None]
    assert all(cell.keys["ceiling"] == cell.keys["weak"] for cell in plan.cells)


def test_more_test_prompts_train_nothing_anew(tmp_path: Path) -> None:
    spec = text_spec(tmp_path, grid=GRID)
    before = build(load(spec)).steps
    spec.write_text(spec.read_text().replace("test: 6", "test: 7"))
    after = build(load(spec)).steps
    new = {after[key].kind.name for key in after.keys() - before.keys()}
    assert new == {"prompts", "generate", "judge", "perplexity"}
    splits = {
        step.config.splits[0]  # type: ignore[attr-defined]
        for key, step in after.items()
        if key not in before and step.kind.name == "generate"
    }
    assert splits == {"test"}


@pytest.mark.parametrize(
    ("checker", "reason"),
    [
        ("raises", "KeyError"),
        ("gives", "KeyError"),
        (
            "loops",
            "loops did not end within 0.2 seconds (prompts.timeout_seconds) for answers to 5 ",
        ),
    ],
)
def test_a_checker_that_fails_fails_its_cells_with_the_reason(
    tmp_path: Path, checker: str, reason: str
) -> None:
    spec = text_spec(tmp_path, grid={"pair": [["weak", "strong"]], "method": ["untrained"]})
    name = f"tests.testing.text_checks:{checker}\n  timeout_seconds: 0.2"
    spec.write_text(
        spec.read_text().replace("tests.testing.text_checks:has_many_low_letters", name)
    )
    assert main([str(spec), "--local"]) == 1
    rows = pq.read_table(tmp_path / "store/results/tiny-text.parquet").to_pylist()
    by_method = {row["method"]: row for row in rows}
    assert by_method["untrained"]["status"] == "failed"
    assert by_method["weak"]["status"] == "blocked"
    assert reason in by_method["untrained"]["error"]
    assert all(row["rate"] is None for row in rows)


REFUSED = {
    "alpha: [0.4]": ("alpha: [1.4]", "grid.alpha[0]: given 1.4, expected a number of at most 1"),
    "weak, strong": (
        "weak, strnog",
        "grid.pair[0][1]: given 'strnog', expected one of weak, strong",
    ),
    "untrained": ("untraned", "did you mean 'untrained'?"),
    "perplexity_model: outside": (
        "perplexity_model: strong",
        "evaluation.perplexity_model: given 'strong', expected a model of no pair",
    ),
    "model: outside": ("model: outsde", "did you mean 'outside'?"),
    "max_new_tokens: 16": ("max_new_tokens: 64", "expected fewer than training.max_length_tokens"),
    "text_checks:has": ("text_checks:has_none", "which cannot be imported"),
    "tests.testing.text_checks": ("my_checks", "on Python's path (the spec's folder is neither)"),
    "render: transcript": ("render: chat_template", "has no chat template"),
}


@pytest.mark.parametrize("written", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(
    tmp_path: Path, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, message = REFUSED[written]
    grid = {"pair": [["weak", "strong"]], "method": ["untrained"], "alpha": [0.4]}
    spec = text_spec(tmp_path, grid=grid)
    text = spec.read_text().replace("- - weak\n    - strong", "- [weak, strong]")
    text = text.replace("  alpha:\n  - 0.4", "  alpha: [0.4]")
    assert written in text
    spec.write_text(text.replace(written, wrong))
    assert main([str(spec), "--local"]) == 2
    line = capsys.readouterr().err.strip()
    assert message in line.replace("\n", " ")


def test_models_with_other_tokens_cannot_be_compared_token_by_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.testing.text_studies import tiny_model
    from w2s_ray.models.tokenizer import bytes_tokenizer

    tokenizer = bytes_tokenizer()
    tokenizer.add_tokens(["weak to strong"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    models = {"weak": tiny_model(0), "strong": tiny_model(1), "outside": tiny_model(2)}
    models["strong"]["tokenizer"] = str(tmp_path / "tokenizer")
    models["strong"]["config"] |= {"vocab_size": 300}
    for method, code in (("proxy", 2), ("wspo", 2), ("weak_sft", None)):
        grid = {"pair": [["weak", "strong"]], "method": [method]}
        spec = text_spec(tmp_path / method, grid=grid, models=models)
        if code is None:
            assert len(build(load(spec)).cells) == 4
            continue
        assert main([str(spec), "--local"]) == code
        assert "whose tokenizers differ" in capsys.readouterr().err.replace("\n", " ")


def test_answers_that_nothing_can_be_learned_from_fail_their_cells_with_the_reason(
    tmp_path: Path,
) -> None:
    """None of them ends: the untrained model is scored all the same."""
    grid = {"pair": [["weak", "strong"]], "method": ["untrained", "sft_before"]}
    endless = {"max_new_tokens": 3, "temperature": 1.0, "samples": 2}
    spec = text_spec(
        tmp_path, grid=grid, decoding=endless, evaluation=endless, pairs={"samples": 2}
    )
    assert main([str(spec), "--local"]) == 1
    rows = pq.read_table(tmp_path / "store/results/tiny-text.parquet").to_pylist()
    by_method = {row["method"]: row for row in rows}
    assert by_method["untrained"]["status"] == "done"
    assert by_method["untrained"]["cut_off"] == 1.0
    reasons = {
        "sft_before": "none of 16 samples can be learned from: all are empty or cut off",
        "weak": "no preference pair can be made of the samples: 8 prompts with fewer than 2",
        "ceiling": "no preference pair can be made of the samples",
    }
    for method, reason in reasons.items():
        assert by_method[method]["status"] == "blocked"
        assert reason in by_method[method]["error"], method


def test_the_task_is_one_of_two(tmp_path: Path) -> None:
    spec = text_spec(tmp_path)
    spec.write_text(spec.read_text().replace("task: generation", "task: generaton"))
    with pytest.raises(SpecError, match="did you mean 'generation'"):
        load(spec)


def test_a_model_that_cannot_be_read_in_shards_is_refused_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    from tests.testing.families import save_family, with_end
    from tests.testing.text_studies import tiny_model
    from w2s_ray.errors import InputError
    from w2s_ray.running.text_preflight import prepare_prompts
    from w2s_ray.store.artifacts import Store

    strong = with_end(save_family("Mixtral", tmp_path / "experts"), 0)
    models = {"weak": tiny_model(0), "outside": tiny_model(2), "strong": {"source": strong.source}}
    for stage in (2, 3):
        execution = {"workers": 2, "zero_stage": stage}
        path = text_spec(tmp_path / str(stage), models=models, execution=execution)
        spec = load(path)
        assert isinstance(spec, GenerationSpec)
        steps, store = build(spec).steps, Store.open(str(tmp_path / "store"))
        if stage == 2:
            prepare_prompts(spec, steps, store, lambda line: None)
            continue
        with pytest.raises(InputError, match="experts cannot be read in shards") as refused:
            prepare_prompts(spec, steps, store, lambda line: None)
        assert refused.value.place == ("models", "strong")
