"""Runs a corpus in one process of bounded memory, once for all tests of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[[str, int], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def run_corpus(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Program of this folder and limit on its memory in bytes -> the outcome of each case."""

    def run(program: str, memory: int) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp(program)
        done = subprocess.run(
            [sys.executable, "-m", f"tests.corpora.{program}", str(folder), str(memory)],
            cwd=ROOT,
            env={**os.environ, "W2S_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, (outcomes[-1:], done.stderr[-2000:])
        return outcomes

    return run
