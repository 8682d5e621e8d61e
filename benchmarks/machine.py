"""Where and when something was measured: hardware, versions, commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.sides import REPOSITORY

PACKAGES = ("torch", "transformers", "ray", "pyarrow")


def facts(trl_python: Path) -> dict[str, Any]:
    """JSON values; what cannot be found out is told as such, never guessed."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions, "trl": _trl(trl_python)},
    }


def hardware() -> str:
    """Processor, cores this process may use, memory, and whether there is AMX."""
    flags, model = "", platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        known = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        flags, model = known.get("flags", ""), known.get("model name", model)
    cores = len(os.sched_getaffinity(0))
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    amx = "with AMX (bf16)" if "amx_bf16" in flags.split() else "without AMX"
    return f"{model}, {cores} cores, {amx}, {gibibytes:.0f} GiB"


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "w2s_ray", "tests/benchmarks")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" + changes" if changed else "")


def _trl(python: Path) -> str:
    if not python.exists():
        return "not installed"
    code = "from importlib.metadata import version; print(version('trl'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
