"""The predictions table holds each model's test rows once, as the artifact has them."""

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pyarrow import compute, parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity as Identity
from w2s_ray.store.predictions import models_written, write_predictions

FROZEN = ["key", "model_role", "row_id", "label", "prob"]


def read(store: Store, study: str = "hh") -> Any:
    with store.open_file(f"predictions/{study}.parquet") as file:
        return parquet.read_table(file)


def test_each_model_is_there_once_with_all_its_rows(store: Store, study: Any) -> None:
    made = study(store)
    made.finish_all()
    where = write_predictions(store, "hh", made.cells)
    assert where == f"{store.uri}/predictions/hh.parquet"
    table = read(store)
    assert table.column_names[:5] == FROZEN
    roles = {role: {c["keys"][role] for c in made.cells} for role in ("weak", "student", "ceiling")}
    assert {role: len(keys) for role, keys in roles.items()} == {
        "weak": 2,
        "student": 4,
        "ceiling": 2,
    }
    assert table.num_rows == 8 * 4
    for role, keys in roles.items():
        for key in keys:
            own = table.filter(compute.field("key") == key)
            (content,) = store.contents([key], "test.parquet")
            source = parquet.read_table(BytesIO(content))
            assert set(own["model_role"].to_pylist()) == {role}
            for name in ("row_id", "label", "probs"):
                assert own[name].to_pylist() == source[name].to_pylist()
            assert own["prob"].to_pylist() == [probs[1] for probs in source["probs"].to_pylist()]


def test_one_row_group_a_model_in_the_order_of_the_metadata(local: Store, study: Any) -> None:
    made = study(local)
    made.finish_all()
    write_predictions(local, "hh", made.cells)
    with local.open_file("predictions/hh.parquet") as opened:
        file = parquet.ParquetFile(opened)
        groups = [
            file.read_row_group(n, ["model_role", "key"]).to_pylist()[0].values()
            for n in range(file.num_row_groups)
        ]
    assert [sorted(group) for group in groups] == [
        sorted(model) for model in models_written(local, "hh") or []
    ]
    assert len(groups) == 8


def test_only_a_changed_set_of_models_is_written_again(local: Store, study: Any) -> None:
    made = study(local)
    made.finish_all(made.cells[:1])
    path = Path(local.uri, "predictions/hh.parquet")
    write_predictions(local, "hh", made.cells)
    first = path.stat().st_ino, path.read_bytes()
    write_predictions(local, "hh", made.cells[::-1])
    assert (path.stat().st_ino, path.read_bytes()) == first
    path.unlink()
    write_predictions(local, "hh", made.cells[::-1])
    assert path.read_bytes() == first[1], "rebuilt byte for byte"
    made.finish_all()
    write_predictions(local, "hh", made.cells)
    assert len(models_written(local, "hh") or []) == 8
    write_predictions(local, "hh", made.cells[:1])
    assert path.read_bytes() == first[1], "a smaller study forgets the other models"


def test_before_any_model_is_finished_the_table_is_empty(store: Store, study: Any) -> None:
    assert models_written(store, "hh") is None
    write_predictions(store, "hh", study(store).cells)
    assert read(store).num_rows == 0
    assert models_written(store, "hh") == []


def test_more_than_two_classes_have_no_single_probability(local: Store, study: Any) -> None:
    made = study(local, seeds=[0])
    key = made.cells[0]["keys"]["student"]
    with local.draft(Identity("student", key, "x", 1, {}, {}), {}) as draft:
        table = made.predicted(key, rows=5, classes=3)
        parquet.write_table(table, draft.folder / "test.parquet")
    write_predictions(local, "hh", made.cells)
    table = read(local)
    assert table["prob"].to_pylist() == [None] * 5
    assert [len(probs) for probs in table["probs"].to_pylist()] == [3] * 5
    assert [sum(probs) for probs in table["probs"].to_pylist()] == pytest.approx([1.0] * 5)


def test_a_model_without_predictions_is_an_error_not_a_gap(store: Store, study: Any) -> None:
    made = study(store, seeds=[0])
    with store.draft(Identity("weak", made.cells[0]["keys"]["weak"], "x", 1, {}, {}), {}):
        pass
    with pytest.raises(FileNotFoundError):
        write_predictions(store, "hh", made.cells)
    assert models_written(store, "hh") is None


def test_a_model_that_was_made_anew_is_written_anew(local: Store, study: Any) -> None:
    """The key is the same; what it gave need not be (another machine, another library)."""
    made = study(local, seeds=[0])
    made.finish_all()
    write_predictions(local, "hh", made.cells)
    key = made.cells[0]["keys"]["student"]
    shutil.rmtree(local.artifact(key).folder)
    with local.draft(made.step("student", made.cells[0]), {}) as draft:
        parquet.write_table(made.predicted("other output"), draft.folder / "test.parquet")
    write_predictions(local, "hh", made.cells)
    own = read(local).filter(compute.field("key") == key)
    assert own["probs"].to_pylist() == made.predicted("other output")["probs"].to_pylist()


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_damaged_table_is_written_again(local: Store, study: Any, size: int) -> None:
    made = study(local, seeds=[0])
    made.finish_all()
    write_predictions(local, "hh", made.cells)
    path = Path(local.uri, "predictions/hh.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert models_written(local, "hh") is None
    write_predictions(local, "hh", made.cells)
    assert path.read_bytes() == whole


def test_rows_of_one_prompt_share_an_id_and_rows_without_a_prompt_have_their_own(
    store: Store, study: Any
) -> None:
    made = study(store)
    made.finish_all()
    write_predictions(store, "hh", made.cells)
    table = read(store)
    for key in set(table["key"].to_pylist()):
        own = table.filter(compute.field("key") == key)
        first, second, third, last = own["prompt_id"].to_pylist()
        assert first == second != third
        assert last == own["row_id"].to_pylist()[3]
        assert own["phenomenon"].null_count == 4  # of generated data only


def test_a_table_without_the_newest_columns_is_written_again(local: Store, study: Any) -> None:
    made = study(local)
    made.finish_all()
    path = write_predictions(local, "hh", made.cells)
    whole = parquet.read_table(path)
    parquet.write_table(whole.drop_columns(["prompt_id"]), path)
    assert models_written(local, "hh") is None
    write_predictions(local, "hh", made.cells)
    assert parquet.read_table(path).equals(whole)
