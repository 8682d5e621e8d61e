"""The command in a process of its own: outputs, disks and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.testing.chaos.forks import Forks
from tests.testing.specs import tiny_spec
from w2s_ray.ending.signals import RESUME
from w2s_ray.study import main
from w2s_ray.training.early_end import LINE

pytestmark = pytest.mark.long
COMMAND = f"exec {sys.executable} -m w2s_ray.study "


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("--plan >&-", 0, ""),
        ("--plan >&- 2>&-", 0, ""),
        ("--local --json | head -c 1", 0, "study tiny"),
        ("--plan > /dev/full", 74, "standard output could not be written: No space left"),
        ("--local > /dev/full 2> /dev/full", 74, ""),
        ("--help > /dev/full", 74, "could not be written"),
    ],
)
def test_output_that_goes_nowhere(finished: Path, redirection: str, code: int, said: str) -> None:
    command = COMMAND.removeprefix("exec ") if "|" in redirection else COMMAND
    ended = shell(f"{command} {finished} {redirection}")
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == bool(said) and said in ended.stderr


def test_a_terminal_without_unicode(finished: Path) -> None:
    ended = shell(f"{COMMAND} {finished} --local", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.isascii() and "+--" in ended.stdout


def test_files_that_are_too_large_are_one_line(write_spec: Callable[..., Path]) -> None:
    """A quota: no file may have more than 1 MiB, and the features have more."""
    sizes = {"ground_truth": 5_000, "weak": 20, "test": 20}
    spec = write_spec(data__pairs={**_pairs(), "sizes": sizes})
    ended = shell(f"ulimit -f 1024; {COMMAND} {spec} --local")
    assert ended.returncode == 1  # the cells say why; their results are small enough
    assert "File too large" in ended.stdout and "Traceback" not in ended.stdout + ended.stderr
    table = pq.read_table(spec.parent / "store" / "results" / "tiny.parquet")
    assert set(table["status"].to_pylist()) == {"blocked"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(write_spec: Callable[..., Path], small_disk: Path, forks: Forks) -> None:
    sizes = {"ground_truth": 200, "weak": 200, "test": 400}
    spec = write_spec(data__pairs={**_pairs(), "sizes": sizes}, grid__seed=list(range(8)))
    ended = forks.run(spec, "--local", "--store", small_disk / "store", folder=spec.parent)
    assert ended.code == 74
    (line,) = ended.errors.splitlines()
    assert "No space left on device" in line and RESUME in line
    assert "Traceback" not in ended.output
    assert list(small_disk.glob("store/weak/[!.]*/record.json"))


def test_a_file_that_is_to_be_written_is_a_folder(
    write_spec: Callable[..., Path], tmp_path: Path, forks: Forks
) -> None:
    (tmp_path / "store/results/tiny.parquet").mkdir(parents=True)
    ended = forks.run(write_spec(), "--local", folder=tmp_path)
    assert ended.code == 2 and ended.output == ""
    (line,) = ended.errors.splitlines()
    assert "tiny.parquet" in line and "is a directory" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_modules_are_imported(finished: Path, number: signal.Signals) -> None:
    """It is sent as soon as it is handled, long before the imports have ended."""
    command = [sys.executable, "-m", "w2s_ray.study", str(finished), "--local"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not _catches(run.pid, signal.SIGTERM) and time.monotonic() < deadline:
        time.sleep(0.001)
    run.send_signal(number)
    output, errors = run.communicate(timeout=200)
    assert run.returncode == 128 + number
    assert output == "" and errors.endswith(f"{RESUME}\n") and len(errors.splitlines()) == 1


def signalled(forks: Forks, spec: Path, number: signal.Signals, moment: str) -> str:
    """The output of a run that gets the signal as soon as the store has a file like ``moment``."""
    folder = spec.parent
    run = forks.begin(spec, "--local", folder=folder)
    deadline = time.monotonic() + 200
    while not list(folder.glob(f"store/{moment}")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run, number)
    code, output, errors = forks.ended(run, folder)
    assert code == 128 + number
    assert len(errors.splitlines()) == 1 and "Traceback" not in output
    assert "unfinished: the run was interrupted" in output
    return output


def test_a_signal_in_the_middle_of_training_leaves_a_checkpoint(
    write_spec: Callable[..., Path], tmp_path: Path, forks: Forks
) -> None:
    """The terminal is closed while the weak model trains; the rerun changes no bit."""
    changes = {"grid__trainable": ["full"], "training__epochs": 12}
    spec = write_spec(**changes, execution={"checkpoint_steps": 12})
    assert LINE in signalled(forks, spec, signal.SIGHUP, "checkpoints/*/*.json")
    assert not list((tmp_path / "store/claims").iterdir())
    (newest, *_) = sorted(tmp_path.glob("store/checkpoints/*/*.json"), reverse=True)
    only = [str(spec), "--local", "--only", newest.parent.name]
    assert main(only) == 0
    assert main([*only, "--store", str(tmp_path / "straight")]) == 0
    resumed, straight = (next(tmp_path.glob(f"{s}/weak/[!.]*")) for s in ("store", "straight"))
    record = json.loads((resumed / "record.json").read_text())
    assert record["metrics"]["checkpoints"]["resumed_at"] == int(newest.stem) >= 12
    for name in ("test.parquet", "model.safetensors"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


def test_a_signal_in_the_middle_leaves_results(
    write_spec: Callable[..., Path], tmp_path: Path, forks: Forks
) -> None:
    spec = write_spec(grid__seed=list(range(40)))
    assert LINE not in signalled(forks, spec, signal.SIGTERM, "weak/[!.]*")
    table = pq.read_table(tmp_path / "store/results/tiny.parquet")
    assert len(table) == 160 and "pending" in table["status"].to_pylist()
    # A claim that was being taken at that moment may stay; it holds nobody up, and goes.
    assert main([str(spec), "--local", "--no-report"]) == 0
    assert not list((tmp_path / "store/claims").iterdir())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["connecting", "running"])
def test_sigterm_on_ray(write_spec: Callable[..., Path], tmp_path: Path, moment: str) -> None:
    """Ray's own handlers would exit with 1 and no word, or print a stack of C++."""
    spec = write_spec(grid__seed=list(range(40)))
    command = [sys.executable, "-m", "w2s_ray.study", str(spec)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = {"connecting": _starts_ray, "running": lambda pid: list(tmp_path.glob("store/weak/*"))}
    deadline = time.monotonic() + 120
    while not seen[moment](run.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 143
    assert len(errors.splitlines()) == 1 and "Terminated" in errors
    assert ("unfinished" in output) or moment == "connecting"


def _starts_ray(process: int) -> bool:
    """Whether a child of the process is one of Ray's."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    names = (Path(f"/proc/{child}/cmdline") for child in children)
    return any("gcs_server" in name.read_text() for name in names if name.exists())


def _pairs() -> dict[str, object]:
    pairs: dict[str, object] = tiny_spec()["data"]["pairs"]  # type: ignore[index]
    return pairs


def _catches(process: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
