"""``python -m w2s_ray.specs FOLDER`` copies the shipped specs there, for who installed a wheel.

They are copied because a study's paths, its store among them, are relative to its spec.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

SHIPPED = Path(__file__).parent / "study_specs"  # a link to the folder of the repository


def main(arguments: Sequence[str] | None = None) -> int:
    """Copies the specs and returns the exit code; a file that is there already is not touched."""
    parser = argparse.ArgumentParser(
        prog="python -m w2s_ray.specs", description="Copy the shipped study specs into a folder."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args(arguments).folder
    present = [path.name for path in _shipped() if (folder / path.name).exists()]
    if present:
        print(f"{folder}: has {', '.join(present)} already; nothing was copied", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for path in _shipped():
        copyfile(path, folder / path.name)
    print(f"{folder}: {len(list(folder.glob('*.yaml')))} specs")
    return 0


def _shipped() -> list[Path]:
    return sorted(path for path in SHIPPED.iterdir() if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
