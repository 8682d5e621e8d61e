"""Every command and snippet of the README runs as it is written.

All ```bash and ```python blocks run in order, each in a process of its own, in a copy of the
checkout with the environment active. A block that cannot run here says so in the line above it,
which renders as nothing:

    <!-- not run: needs an AWS account -->

A block in another shell's name (sh, console, …) is refused, since it would escape unnoticed.

``make ci`` runs the blocks on a quickstart of fewer rows; the quickstart at its full size is
among the slow tests.
"""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import venv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.testing.markdown import Block, blocks

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 1500
QUICKSTART = Path("study_specs/quickstart.yaml")
CELLS = 3 * 3 * 3 * 3  # losses, noise ratios, rates, seeds


def run_blocks(found: list[Block], folder: Path, environment: dict[str, str]) -> None:
    """Runs the blocks in `folder` in order; AssertionError with line and output at a bad one."""
    for block in found:
        if block.not_run:
            continue
        command = {
            "bash": ["bash", "-euo", "pipefail", "-c", block.code],
            "python": ["python", "-c", block.code],
        }[block.language]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its children too
                output, _ = process.communicate()
                output += f"\nkilled after {TIMEOUT_SECONDS} s"
        assert process.returncode == 0, (
            f"README.md:{block.line} exited {process.returncode}:\n{block.code}\n{output[-4000:]}"
        )


def checkout(folder: Path) -> Path:
    """A copy of the files git knows or would add, with an environment that `make` finds ready.

    The environment is a new one that sees this one's packages and commands, so that a block may
    run pip or make in it, and nothing it does reaches the environment the tests run in.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted but still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    environment = folder / ".venv"
    venv.create(environment, symlinks=True, with_pip=True)
    ours = sysconfig.get_path("purelib")
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    for script in Path(sysconfig.get_path("scripts")).iterdir():
        if script.is_file() and not (environment / "bin" / script.name).exists():
            shutil.copy2(script, environment / "bin" / script.name)
    (environment / ".installed").touch()
    return folder


def active(folder: Path) -> dict[str, str]:
    """The variables of a shell in which the copy's environment is active."""
    binaries = folder / ".venv" / "bin"
    variables = {**os.environ, "VIRTUAL_ENV": str(folder / ".venv")}
    variables["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    variables.pop("MAKEFLAGS", None)  # of the `make ci` that may have called us
    variables.pop("MAKELEVEL", None)
    return variables


def cut_quickstart(folder: Path, rows: int) -> None:
    """Leaves ``rows`` rows of each split to the quickstart of the copy in ``folder``."""
    text = (folder / QUICKSTART).read_text(encoding="utf-8")
    sizes = f"sizes: {{ground_truth: {rows}, weak: {rows}, test: {rows}}}"
    cut, places = re.subn(r"sizes: \{.*\}", sizes, text)
    assert places == 1
    cut, places = re.subn(r"validation: \{rows: \d+\}", f"validation: {{rows: {rows // 4}}}", cut)
    assert places == 1
    (folder / QUICKSTART).write_text(cut, encoding="utf-8")


@pytest.mark.ray
@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
@pytest.mark.parametrize("rows", [64, pytest.param(None, marks=pytest.mark.slow)])
def test_every_block_of_the_readme_runs(tmp_path: Path, rows: int | None) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so it is not known which files belong to it")
    found = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert any(not block.not_run for block in found), "the README runs nothing"
    folder = checkout(tmp_path / "copy")
    if rows:
        cut_quickstart(folder, rows)
    run_blocks(found, folder, active(folder))
    results = pq.read_table(folder / "store/results/quickstart.parquet").to_pylist()
    assert [row["status"] for row in results] == ["done"] * CELLS
    assert {row["test_rows"] for row in results} == {rows or 2000}


README = """\
# A project

<!-- not run: needs a network -->
```bash
git clone nowhere && exit 1
```

<!-- not run: this is for the next block only -->

```python
raise SystemExit(1)
```
```yaml
loss: [forward_kl]
```

1. First
   ```bash
   test "$VIRTUAL_ENV"
   echo made > here.txt
   ```

~~~python
from pathlib import Path
assert Path("here.txt").read_text() == "made\\n"
~~~
"""


def test_blocks_are_found_with_their_lines_and_reasons() -> None:
    found = blocks(README)
    assert [(b.line, b.language, b.not_run) for b in found] == [
        (4, "bash", "needs a network"),
        (10, "python", "this is for the next block only"),
        (18, "bash", ""),
        (23, "python", ""),
    ]
    assert found[2].code == 'test "$VIRTUAL_ENV"\necho made > here.txt\n'


def test_blocks_run_in_order_in_the_folder(tmp_path: Path) -> None:
    run_blocks(blocks(README), tmp_path, active(tmp_path))
    assert (tmp_path / "here.txt").read_text() == "made\n"


@pytest.mark.parametrize(
    "block",
    [
        "```bash\nfalse\necho later\n```",
        "```bash\nfalse | cat\n```",
        "```bash\necho $no_such_variable\n```",
        "```python\nassert 1 == 2\n```",
        "<!-- not run: -->\n```bash\nfalse\n```",  # a reason is required
        "<!-- not run: too far up -->\ntext\n```bash\nfalse\n```",
    ],
)
def test_a_block_that_fails_is_reported_with_its_line(tmp_path: Path, block: str) -> None:
    line = block.split("```")[0].count("\n") + 2
    with pytest.raises(AssertionError, match=rf"README\.md:{line} exited 1"):
        run_blocks(blocks(f"text\n{block}\n"), tmp_path, active(tmp_path))


def test_a_later_block_does_not_run_after_a_failure(tmp_path: Path) -> None:
    text = "```bash\nfalse\n```\n```bash\ntouch later\n```\n"
    with pytest.raises(AssertionError, match="README"):
        run_blocks(blocks(text), tmp_path, active(tmp_path))
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\ntrue\n```\n", "line 1: 'sh' is not run"),
        ("\n```console\n$ true\n```\n", "line 2: 'console' is not run"),
        ("```bash\ntrue\n", "line 1: the block never ends"),
    ],
)
def test_a_block_that_would_escape_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        blocks(text)


@pytest.mark.long
def test_the_copy_has_the_files_and_an_environment_that_make_finds_ready(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so it is not known which files belong to it")
    folder = checkout(tmp_path / "copy")
    assert (folder / "w2s_ray" / "__init__.py").read_bytes() == (
        ROOT / "w2s_ray" / "__init__.py"
    ).read_bytes()
    ready = subprocess.run(
        ["make", "--question", "install"], cwd=folder, env=active(folder), check=False
    )
    assert ready.returncode == 0
    where = "import sys, yaml, w2s_ray; print(sys.prefix); print(w2s_ray.__file__)"
    said = subprocess.run(
        [".venv/bin/python", "-c", where],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said == [str(folder / ".venv"), str(folder / "w2s_ray" / "__init__.py")]
    pip = subprocess.run(
        [".venv/bin/pip", "--version"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert str(folder / ".venv") in pip.stdout
