"""Links below a folder of data: each file is read once, and what repeats is said."""

import os

import pytest

from w2s_ray.data.prepare import prepare
from w2s_ray.data.sources import REPEATED_LINKS, fingerprint, read_rows
from w2s_ray.spec.schema import DataSpec


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        lines = (f'{{"text": "{name} {n}", "label": {n % 2}}}\n' for n in range(12))
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path / "data"


def counts(folder):
    """Rows that are read, and links that are noted."""
    sizes = {"ground_truth": 1, "weak": 1, "test": 1}
    data = {"kind": "classification", "source": str(folder), "sizes": sizes}
    read = prepare(DataSpec.model_validate(data)).report["read"]["source"]
    return read["rows"], read["notes"].get(REPEATED_LINKS, 0)


def test_a_circle_of_links_ends_where_it_began(folder):
    before = fingerprint(str(folder))
    assert counts(folder) == (24, 0)
    (folder / "inner" / "loop").symlink_to("..")
    (folder / "inner" / "itself").symlink_to(".")
    assert counts(folder) == (24, 2)
    assert fingerprint(str(folder)) == before == fingerprint(folder.as_uri())


def test_a_file_that_several_links_lead_to_is_read_by_its_own_path(folder):
    before = fingerprint(str(folder))
    (folder / "0.jsonl").symlink_to("a.jsonl")
    (folder / "again").symlink_to("inner")
    assert counts(folder) == (24, 2)
    assert fingerprint(str(folder)) == before
    assert {place.rpartition(":")[0] for place, _ in read_rows(str(folder))} == {
        str(folder / "a.jsonl"),
        str(folder / "inner/b.jsonl"),
    }


def test_links_to_elsewhere_are_followed_and_copies_are_files_of_their_own(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.jsonl").write_text('{"text": "c", "label": 1}\n')
    (folder / "other").symlink_to(tmp_path / "other")
    assert counts(folder) == (25, 0)
    os.link(folder / "a.jsonl", folder / "copy.jsonl")
    assert counts(folder) == (37, 0)
