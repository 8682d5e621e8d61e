"""Tables of prompts: splits that share nothing, generated or from files, and their keys."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from w2s_ray.errors import InputError
from w2s_ray.spec.families import TRAIN_FAMILIES, TRANSFER_FAMILIES
from w2s_ray.spec.prompts import SPLITS, Prompts, PromptSizes
from w2s_ray.tasks import prompt_files
from w2s_ray.tasks.families import obeys
from w2s_ray.tasks.prompts import prompt_tables, prompts_identity
from w2s_ray.tasks.topics import TOPICS

SIZES = {"align": 60, "train": 50, "test": 40, "transfer": 30}


def spec(**fields):
    return Prompts.model_validate({"source": "generate:constraints", "sizes": SIZES, **fields})


def values(table, column):
    return table.column(column).to_pylist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**63 - 1))
def test_generated_splits_share_no_prompt_and_test_has_topics_of_its_own(seed):
    tables = prompt_tables(spec(seed=seed))
    assert {split: table.num_rows for split, table in tables.items()} == SIZES
    for column in ("prompt_id", "prompt"):
        together = [value for table in tables.values() for value in values(table, column)]
        assert len(set(together)) == sum(SIZES.values())
    learned = {topic for split in ("align", "train") for topic in values(tables[split], "topic")}
    tested = {topic for split in ("test", "transfer") for topic in values(tables[split], "topic")}
    assert not learned & tested
    assert set(values(tables["transfer"], "family")) == set(TRANSFER_FAMILIES)
    for split in ("align", "train", "test"):
        assert set(values(tables[split], "family")) == set(TRAIN_FAMILIES)
    for table in tables.values():
        for row in table.to_pylist():
            check = json.loads(row["check"])
            obeys(check, "a")
            assert check["family"] == row["family"] and row["topic"] in row["prompt"]


def test_the_same_seed_gives_the_same_tables_and_another_one_others():
    assert prompt_tables(spec(seed=3)) == prompt_tables(spec(seed=3))
    assert prompt_tables(spec(seed=3))["test"] != prompt_tables(spec(seed=4))["test"]


def test_without_transfer_its_table_is_empty():
    table = prompt_tables(spec(sizes={"align": 2, "train": 2, "test": 2}))["transfer"]
    assert table.num_rows == 0 and "check" in table.column_names


def test_families_can_be_chosen():
    tables = prompt_tables(
        spec(families=["title", "no_commas"], transfer_families=["lowercase"], seed=1)
    )
    assert set(values(tables["align"], "family")) == {"title", "no_commas"}
    assert set(values(tables["transfer"], "family")) == {"lowercase"}


def test_there_are_enough_different_topics():
    assert len(set(TOPICS)) == len(TOPICS) >= 60


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": {**SIZES, "test": 100_000}}, "prompts of 8 families, expected at most"),
        ({"families": ["title"]}, "given title, which is trained on"),
    ],
)
def test_what_cannot_be_generated_is_one_line(fields, message):
    with pytest.raises(InputError) as error:
        prompt_tables(spec(**fields))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": ["generate:constraints", "a.jsonl"]}, "generate:constraints alone, or other"),
        ({"source": "generate:constraint"}, "generate:constraints"),
        ({"sizes": {**SIZES, "train": 10**7}}, "limit generate.rows"),
        ({"sizes": {**SIZES, "transfer": -1}}, "greater than or equal to 0"),
        ({"checker": "my.module:check"}, "no checker with source: generate:constraints"),
        ({"source": "a.jsonl", "checker": "my.module"}, "package.module:function"),
        ({"source": "a.jsonl", "families": ["title"]}, "no families without source"),
        ({"families": ["no_comas"]}, "no_comas"),
    ],
)
def test_mistakes_in_the_spec(fields, message):
    with pytest.raises(ValidationError) as error:
        spec(**fields)
    assert message in str(error.value)


def row(number, **more):
    check = {"family": "at_most_words", "n": 20}
    return {"prompt": f"Question {number}?", "check": check, **more}


@pytest.fixture
def written(tmp_path):
    def write(rows, name="prompts.jsonl", **fields):
        path = tmp_path / name
        lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "wt", encoding="utf-8") as file:
            file.write(lines)
        return Prompts.model_validate({"source": str(path), **fields})

    return write


DRAWN = {"align": 3, "train": 4, "test": 2}


def test_rows_without_a_split_are_drawn_whatever_their_order(written):
    rows = [row(n) for n in range(12)]
    one = prompt_tables(written(rows, sizes=DRAWN))
    other = prompt_tables(written(rows[::-1], name="other.jsonl.gz", sizes=DRAWN))
    assert one == other
    assert {split: one[split].num_rows for split in SPLITS} == {**DRAWN, "transfer": 0}
    assert values(one["test"], "family") == ["at_most_words"] * 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_equal_prompts_stay_in_one_split(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [row(n // 2, check={"family": "at_most_words", "n": 5 + n}) for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sizes = {"align": 6, "train": 8, "test": 4}
    tables = prompt_tables(
        Prompts.model_validate({"source": str(path), "seed": seed, "sizes": sizes})
    )
    texts = [set(values(tables[split], "prompt")) for split in sizes]
    assert [len(prompts) for prompts in texts] == [3, 4, 2]
    assert len(set().union(*texts)) == 9


def test_named_splits_are_kept_and_cut_to_the_sizes(written):
    rows = [row(n, split=SPLITS[n % 4], topic="t") for n in range(20)]
    full = prompt_tables(written(rows, sizes={"transfer": 9}))
    assert [full[split].num_rows for split in SPLITS] == [5] * 4
    assert set(values(full["train"], "prompt")) == {f"Question {n}?" for n in range(1, 20, 4)}
    cut = prompt_tables(written(rows, sizes={"train": 3, "transfer": 9}))
    assert [cut[split].num_rows for split in SPLITS] == [5, 3, 5, 5]


def test_rows_without_a_split_fill_what_the_others_leave(written):
    rows = [row(n, **({"split": "test"} if n < 1 else {})) for n in range(9)]
    tables = prompt_tables(written(rows, sizes=DRAWN))
    assert {split: tables[split].num_rows for split in DRAWN} == DRAWN
    assert "Question 0?" in values(tables["test"], "prompt")


def test_prompts_may_be_in_another_column_and_checks_text(written):
    rows = [{"question": f"{n}", "check": '{"family": "title"}'} for n in range(9)]
    table = prompt_tables(written(rows, sizes=DRAWN, column="question"))["train"]
    assert values(table, "family") == ["title"] * 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "expected a JSON object per line"),
        ({"prompt": "p"}, "check: given None, expected a mapping"),
        (row(1, prompt=""), "prompt: given '', expected a text"),
        (row(1, prompt=[{"role": "user", "content": "p"}]), "expected a text"),
        (row(1, check="lowercase"), "check: expected a JSON object"),
        (row(1, check={"family": "lowercas"}), "given the family 'lowercas', expected one of"),
        (row(1, check={"family": "at_most_words"}), "given n = None, expected a value like"),
        (row(1, split="tests"), "split: given 'tests', expected one of align, train"),
        (row(1, split=["test"]), "split: given ['test'], expected"),
        (row(0, split="test", check={"family": "title"}), "expected it in one"),
        (row(1, split="transfer"), "given transfer: 0, expected a number"),
        (row(1, family=3), "family: given 3, expected a text"),
        ('{"prompt": "\\ud800", "check": {"family": "lowercase"}}', "half of a surrogate pair"),
        (row(0), "the same prompt and check as in"),
    ],
)
def test_a_bad_row_is_one_line_with_its_file_and_line(written, bad, message):
    with pytest.raises(InputError, match=r"prompts\.jsonl:3") as error:
        prompt_tables(written([row(0), row(2), bad, row(3)], sizes=DRAWN))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "given no row of the split align"),
        ([row(n) for n in range(8)], "the source has 8 different prompts"),
        ([row(n, split="align") for n in range(3)], "given no row of the split train"),
    ],
)
def test_rows_that_make_no_splits_are_one_line(written, rows, message):
    with pytest.raises(InputError) as error:
        prompt_tables(written(rows, sizes=DRAWN))
    assert message in str(error.value)


def test_identity_follows_content_and_not_the_path(written):
    rows = [row(n) for n in range(12)]
    one, moved = written(rows, sizes=DRAWN), written(rows, name="moved.jsonl", sizes=DRAWN)
    changed = written([*rows, row(12)], name="changed.jsonl", sizes=DRAWN)
    assert (
        prompts_identity(one, "test")
        == prompts_identity(moved, "test")
        != prompts_identity(changed, "test")
    )
    assert prompts_identity(one, "test") != prompts_identity(
        one.model_copy(update={"seed": 1}), "test"
    )
    assert json.dumps(prompts_identity(one, "test"))


def test_rows_of_the_hub_that_repeat_a_prompt_are_read_once_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("hf:org/name: row 1", row(0)), ("hf:org/name: row 2", row(1))]
    rows += [("hf:org/name: row 3", row(0)), ("hf:org/name: row 4", row(2))]
    monkeypatch.setattr(prompt_files, "read_rows", lambda source, part: iter(rows))
    sizes = PromptSizes(align=1, train=1, test=1)
    tables = prompt_tables(Prompts(source=("hf:org/name",), sizes=sizes))
    assert sum(table.num_rows for table in tables.values()) == 3
    assert {table.schema.metadata[b"repeated"] for table in tables.values()} == {b"1"}
