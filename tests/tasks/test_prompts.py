"""Tables of prompts: splits that share nothing, generated or from files, and their keys."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from w2s_ray.errors import InputError
from w2s_ray.spec.prompts import SPLITS, Prompts
from w2s_ray.tasks.families import FAMILIES, TRAIN_FAMILIES, TRANSFER_FAMILIES, verify_check
from w2s_ray.tasks.prompts import prompt_tables, prompts_identity, tables_identity
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
            verify_check(check, "here")
            assert check["family"] == row["family"] and row["topic"] in row["prompt"]


def test_the_same_seed_gives_the_same_tables_and_another_one_others():
    assert prompt_tables(spec(seed=3)) == prompt_tables(spec(seed=3))
    assert prompt_tables(spec(seed=3))["test"] != prompt_tables(spec(seed=4))["test"]


def test_generated_prompts_stay_as_they_were():
    first = prompt_tables(spec())["test"].slice(0, 2).to_pylist()
    assert first == [
        {
            "prompt_id": "aa8873138ccb58a07321",
            "prompt": "Write a short text about salt. Use only lowercase letters.",
            "family": "lowercase",
            "topic": "salt",
            "check": '{"family": "lowercase"}',
        },
        {
            "prompt_id": "7623d09fb92f972e6865",
            "prompt": "What should I know about a school? Keep it short. Do not use any commas.",
            "family": "no_commas",
            "topic": "a school",
            "check": '{"family": "no_commas"}',
        },
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_a_larger_split_has_all_prompts_of_a_smaller_one_and_changes_no_other(split):
    small = prompt_tables(spec())
    large = prompt_tables(spec(sizes={**SIZES, split: SIZES[split] + 25}))
    assert large[split].slice(0, SIZES[split]) == small[split]
    assert [large[other] == small[other] for other in SPLITS if other != split] == [True] * 3


def test_without_transfer_its_table_is_empty():
    sizes = {"align": 2, "train": 2, "test": 2}
    table = prompt_tables(spec(sizes=sizes))["transfer"]
    assert table.num_rows == 0 and "check" in table.column_names
    assert prompts_identity(spec(sizes=sizes)) == prompts_identity(
        spec(sizes={**sizes, "transfer": 0})
    )


def test_families_can_be_chosen():
    families = {"train": ["title", "no_commas"], "transfer": ["lowercase"]}
    tables = prompt_tables(spec(families=families))
    assert set(values(tables["align"], "family")) == {"title", "no_commas"}
    assert set(values(tables["transfer"], "family")) == {"lowercase"}
    assert set(values(prompt_tables(spec(families={"train": "title"}))["transfer"], "family")) == (
        set(TRANSFER_FAMILIES) - {"title"}
    )


def test_there_are_enough_different_topics():
    assert len(set(TOPICS)) == len(TOPICS) >= 60


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"families": {"train": ["no_comas"]}}, "did you mean 'no_commas'"),
        ({"sizes": {**SIZES, "test": 100_000}}, "sizes: test: 100,000, expected at most 4,"),
        ({"families": {"train": list(FAMILIES)}}, "no family is free for transfer"),
    ],
)
def test_what_cannot_be_generated_is_one_line(fields, message):
    with pytest.raises(InputError) as error:
        prompt_tables(spec(**fields))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": ["generate:constraints", "a.jsonl"]}, "a generator alone, or files"),
        ({"source": "generate:constraint"}, "generate:constraints"),
        ({"source": ["a.jsonl", "a.jsonl"]}, "each file once"),
        ({"sizes": {"align": 3}}, "align, train and test (numbers of prompts)"),
        ({"sizes": {**SIZES, "train": 10**7}}, "limit generate.rows"),
        ({"sizes": {**SIZES, "transfer": -1}}, "greater than or equal to 0"),
        ({"checker": "my.module:check"}, "no checker with a generator"),
        ({"source": "a.jsonl", "checker": "my.module"}, "pattern"),
        ({"source": "a.jsonl", "timeout_seconds": 2.0}, "no timeout_seconds without checker"),
        ({"families": {"train": ["title"], "transfer": ["title"]}}, "not among those of train"),
        ({"families": {"train": []}}, "null or at least one family"),
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
    full = prompt_tables(written(rows))
    assert [full[split].num_rows for split in SPLITS] == [5] * 4
    assert set(values(full["train"], "prompt")) == {f"Question {n}?" for n in range(1, 20, 4)}
    cut = prompt_tables(written(rows, sizes={"train": 3}))
    assert [cut[split].num_rows for split in SPLITS] == [5, 3, 5, 5]


def test_families_for_transfer_are_in_no_other_split(written):
    rows = [row(n, family="ab"[n % 2]) for n in range(30)]
    sizes = {**DRAWN, "transfer": 5}
    tables = prompt_tables(written(rows, sizes=sizes, families={"transfer": "b"}))
    assert set(values(tables["transfer"], "family")) == {"b"}
    assert {f for split in DRAWN for f in values(tables[split], "family")} == {"a"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "expected a JSON object per line"),
        ({"prompt": "p"}, "check: given none, expected an object of a rule family"),
        (row(1, prompt=""), "expected a text that is not blank"),
        (row(1, prompt=[{"role": "user", "content": "p"}]), "expected a text"),
        (row(1, check="lowercase"), "check: given 'lowercase', expected an object"),
        (row(1, check={"family": "lowercas"}), "did you mean 'lowercase'"),
        (row(1, split="tests"), "split 'tests', expected align, train, test, transfer"),
        (row(1, split=["test"]), "split ['test'], expected"),
        (row(1, split="test"), "a split, unlike"),
        (row(1, topics="t"), "did you mean 'topic'"),
        (row(1, family=3), "family: given 3, expected a text"),
        ('{"prompt": "\\ud800", "check": {"family": "lowercase"}}', "half of a surrogate pair"),
        (row(0), "the same prompt and check as in"),
    ],
)
def test_a_bad_row_is_one_line_with_its_file_and_line(written, bad, message):
    with pytest.raises(InputError, match=r"prompts\.jsonl:3: ") as error:
        prompt_tables(written([row(0), row(2), bad, row(3)], sizes=DRAWN))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([], {"sizes": DRAWN}, "no rows, expected prompts"),
        ([row(n) for n in range(9)], {}, "sizes: expected align, train and test"),
        ([row(n) for n in range(8)], {"sizes": DRAWN}, "too few prompts: 8 rows"),
        (
            [row(n) for n in range(20)],
            {"sizes": {**DRAWN, "transfer": 2}},
            "families: expected those of transfer",
        ),
        ([row(n, split="align") for n in range(3)], {}, "no row of split train"),
        (
            [row(0, split="test"), row(0, split="align", check={"family": "title"})],
            {},
            "the prompt is in split align, and in",
        ),
        (
            [row(n, split="test") for n in range(3)],
            {"families": {"train": "a"}},
            "families: given, but",
        ),
        (
            [row(n, family="aaa") for n in range(9)],
            {"sizes": DRAWN, "families": {"train": "aab"}},
            "did you mean 'aaa'",
        ),
        (
            [row(n, family="ab"[n == 8]) for n in range(9)],
            {"sizes": DRAWN, "families": {"train": "a"}},
            ":9: family 'b', expected one of those that the spec gives",
        ),
    ],
)
def test_rows_that_make_no_splits_are_one_line(written, rows, fields, message):
    with pytest.raises(InputError) as error:
        prompt_tables(written(rows, **fields))
    assert message in str(error.value)


def test_identity_follows_content_and_not_the_path(written):
    rows = [row(n) for n in range(12)]
    one, moved = written(rows, sizes=DRAWN), written(rows, name="moved.jsonl", sizes=DRAWN)
    changed = written([*rows, row(12)], name="changed.jsonl", sizes=DRAWN)
    assert prompts_identity(one) == prompts_identity(moved) != prompts_identity(changed)
    assert tables_identity(one) != tables_identity(one.model_copy(update={"seed": 1}))
    assert json.dumps(prompts_identity(one))
