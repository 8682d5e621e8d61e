"""Texts without their secrets, and with everything else."""

import io
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.errors import InputError, line_of
from w2s_ray.masking import MaskedStream, masked, masked_address, masked_value

CHARACTERS = string.ascii_letters + string.digits + "+-._~%!$*'(),;=:"
SECRETS = st.text(CHARACTERS, min_size=12, max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:se/cr@et@bucket/x?region=eu&token=abc", "s3://***@bucket/x?region=eu&token=***"),
        ("given 's3://me:key@b/x?a=b', expected", "given 's3://***@b/x?a=***', expected"),
        ("https://h/x?X-Amz-Date=ab&X=1: none", "https://h/x?X-Amz-Date=***&X=***: none"),
        ("(https://h/x?justatoken)", "(https://h/x?***)"),
        ("https://h/x#access_token=ab.", "https://h/x#access_token=***."),
        ("hdfs://me@host:9000/x@y", "hdfs://***@host:9000/x@y"),
        ("s3://ID:7/ab#cd@bucket/x", "s3://***@bucket/x"),
        ("hdfs://host:9000/x@y", "hdfs://***@y"),  # reads like a secret that begins with digits
        ("s3:/me:key@b/x", "s3:/***@b/x"),  # as pathlib writes it
        ("given 'KEY:secret@bucket/x'", "given '***@bucket/x'"),
        ("looked for /a/b/x.jsonl?api_token=abc)", "looked for /a/b/x.jsonl?api_token=***)"),
        ("https://h/hf_aB3dE5gH7jK9mN1pQ3sT5/x", "https://h/hf_***/x"),
        ("Authorization: Bearer abcdefgh.12", "Authorization: Bearer ***"),
    ],
)  # fmt: skip
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected == masked(expected)


@pytest.mark.parametrize(
    "text",
    [
        "study.yaml:14: grid.loss[1]: given 'revers_kl', expected one of a, b; did you mean 'b'?",
        "/data/me@home?/a.jsonl:7: row",
        "hdfs://host:9000/x/y",
        "s3://bucket/me@home:1/x?region=eu-west-1",
        "hf:org/name@main",
        "is it at http://localhost:8265/#/jobs?",
        "study_specs/hf_harmless_helpful_and_more.yaml",
        "me@example.org",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert masked(text) == text


@given(user=SECRETS, password=SECRETS, value=SECRETS)
def test_no_address_shows_its_secrets(user: str, password: str, value: str) -> None:
    secrets = {password.strip("\"'`)]}>,;:.…"), value.replace("&", "").strip("\"'`)]}>,;:.…=")}
    address = (
        f"s3://u{user.replace(':', '').replace('@', '')}:p{password}@bucket/x.jsonl?sig={value}"
    )
    for text in (address, f"reading '{address}' failed", f"{address}: row 7", f"({address})"):
        shown = masked(text)
        assert "bucket/x.jsonl?sig=***" in shown and masked(shown) == shown
        assert not any(len(secret) > 4 and secret in shown for secret in secrets)


def test_an_address_with_spaces_does_not_end_at_the_first() -> None:
    assert masked_address("s3://me:se cret@b/x") == "s3://***@b/x"


def test_values_are_masked_at_every_depth() -> None:
    value = {"a": ["s3://me:key@b", 1, None], "b": {"c": "x"}}
    assert masked_value(value) == {"a": ["s3://***@b", 1, None], "b": {"c": "x"}}


def test_errors_show_no_secrets() -> None:
    assert str(InputError("s3://me:key@b/x: no such file")) == "s3://***@b/x: no such file"
    assert line_of(OSError("no\ns3://me:key@b/x")) == "OSError: no s3://***@b/x"


def test_a_masked_stream_is_the_stream_otherwise() -> None:
    inner = io.StringIO()
    stream = MaskedStream(inner)
    assert print("s3://me:key@b/x", file=stream) is None  # type: ignore[call-overload]
    stream.writelines(["a ", "https://h/x?sig=abc\n"])
    assert inner.getvalue() == "s3://***@b/x\na https://h/x?sig=***\n"
    assert stream.isatty() is False
