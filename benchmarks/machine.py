"""The conditions of a measurement: date, hardware, versions, commit."""

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
    """The conditions as JSON values; what cannot be determined is reported as unknown."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions, "trl": _trl(trl_python)},
    }


def hardware() -> str:
    """Processor, cores available to this process, memory, and whether there is AMX."""
    flags, model = "", platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        entries = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        flags, model = entries.get("flags", ""), entries.get("model name", model)
    cores = len(os.sched_getaffinity(0))
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    amx = "with AMX (bf16)" if "amx_bf16" in flags.split() else "without AMX"
    return f"{model}, {cores} cores, {amx}, {gibibytes:.0f} GiB"


def _commit() -> str:
    changed = _git("status", "--porcelain", "--", "w2s_ray", "benchmarks")
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + (" + changes" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _trl(python: Path) -> str:
    if not python.exists():
        return "not installed"
    code = "from importlib.metadata import version; print(version('trl'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
