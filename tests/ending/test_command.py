"""Whatever a command raises is one line and a documented exit code."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.specs import REPOSITORY
from w2s_ray.ending import command, signals
from w2s_ray.ending.codes import MEANINGS, ExitCode
from w2s_ray.errors import InputError, SystemFault
from w2s_ray.study import main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a.yaml:3: seed"), 2, "a.yaml:3: seed"),
        (SystemFault("store x cannot be written"), 74, "store x cannot be written"),
        (OSError(errno.ENOSPC, "No space left on device", "a\nb"), 74, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 74, "Permission denied"),
        (ConnectionResetError("s3://KEY:SECRET@bucket"), 74, "s3://***@bucket"),
        (MemoryError(), 74, "out of memory"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert command.code_of(work) == code
    line = capsys.readouterr().err.rstrip("\n")
    assert said in line and "\n" not in line and "SECRET" not in line
    assert code == 2 or signals.RESUME in line


def test_an_error_of_our_own_names_a_file_with_the_traceback(tmp_path: Path) -> None:
    program = (
        "from w2s_ray.ending import command\ncommand.run(lambda: {}['hf_abcdefghijklmnopqrstuv'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == ExitCode.INTERNAL
    (line,) = ended.stderr.splitlines()
    (file,) = tmp_path.iterdir()
    assert str(file) in line and "KeyError" in line
    assert "Traceback" in file.read_text()
    assert "abcdefghij" not in line + file.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["a.yaml", "--sotre", "x"], "unrecognized arguments: --sotre x; did you mean '--store'?"),
        (["a.yaml", "--plan", "--status"], "not allowed with argument"),
        ([], "required: SPEC"),
    ],
)
def test_an_option_that_is_refused_is_one_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(options)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "--help" in line


def test_the_page_has_every_exit_code() -> None:
    page = (REPOSITORY / "docs" / "ending.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANINGS.items()]
    assert set(MEANINGS) == set(ExitCode)
