"""A file that is not what its name says is refused when its content is hashed, with a remedy."""

import gzip

import pytest

from w2s_ray.data.formats import FORMATS
from w2s_ray.data.signatures import NEVER_DATA, NEVER_TEXT
from w2s_ray.data.sources import fingerprint
from w2s_ray.errors import InputError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize("name", [*(f"x{suffix}" for suffix in FORMATS), "x.jsonl.gz", "x.csv.zst"])
def test_a_pointer_of_git_lfs_says_how_to_fetch_the_data(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(InputError) as error:
            fingerprint(str(source))
        assert str(error.value) == (
            f"{tmp_path}/{name}: is a pointer of Git LFS, not the data; fetch the data with "
            "'git lfs pull'"
        )


@pytest.mark.parametrize("signature", NEVER_TEXT, ids=lambda signature: signature.kind)
def test_another_content_under_the_name_of_text_is_named(tmp_path, signature):
    for suffix, form in FORMATS.items():
        path = tmp_path / f"x{suffix}"
        path.write_bytes(signature.beginning + b"\x00" * 9)
        if form.random_access:
            fingerprint(str(path))
            continue
        with pytest.raises(InputError) as error:
            fingerprint(str(path))
        remedy = signature.remedy.format(name=f"x{suffix}")
        assert str(error.value) == f"{path}: is {signature.kind}; {remedy}"


def test_a_web_page_in_any_case_of_letters_is_named(tmp_path):
    for page in (b"<!DOCTYPE html>\n<html>", b"<HTML>"):
        (tmp_path / "x.csv").write_bytes(page)
        with pytest.raises(InputError, match="is a web page, not the data; download the file"):
            fingerprint(str(tmp_path / "x.csv"))


def test_data_that_is_compressed_under_its_name_is_accepted(tmp_path):
    for signature in NEVER_DATA:
        (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(signature.beginning))
        assert fingerprint(str(tmp_path / "x.jsonl.gz"))["bytes"]
