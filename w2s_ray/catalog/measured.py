"""Dimensions of models that have no formula, measured in another process and kept in the cache.

``models.dimensions`` builds the model of transformers without values and reads its numbers. That
needs torch, which a plan does not load; so it runs as a program, for each configuration once. It
answers one request after another, and ends when none comes for a while.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

from w2s_ray.catalog.digests import cache_folder
from w2s_ray.errors import InputError

PROGRAM = "w2s_ray.models.dimensions"
_VERSION = 1  # of what is measured; raised when the program gives other numbers


def measured(fields: Mapping[str, Any], layers: int | None, name: str) -> dict[str, Any]:
    """Fields of a ``Shape`` as JSON.

    Args:
        fields: all fields of a ``config.json``.
        layers: number of blocks that are kept; None: all.
        name: of the model, for messages.

    Raises:
        InputError: transformers has no such architecture, or the model is of another kind.
    """
    request = json.dumps({"fields": dict(fields), "layers": layers}, sort_keys=True)
    answer: dict[str, Any] = json.loads(_answer(request, kept(request)))
    if "refused" in answer:
        raise InputError(f"model {name}: {answer['refused']}")
    return answer


def kept(request: str) -> Path:
    """Where the answer to a request is kept."""
    try:
        library = version("transformers")
    except PackageNotFoundError:
        library = ""
    digest = sha256(f"{_VERSION} {library} {request}".encode()).hexdigest()
    return cache_folder() / "dimensions" / f"{digest[:32]}.json"


def keep(request: str, answer: str) -> None:
    """Keeps an answer, whole or not at all; without a cache it is computed again."""
    file = kept(request)
    draft = file.with_name(f"draft-{uuid4().hex}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(answer)
        os.replace(draft, file)


@cache
def _answer(request: str, file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    answer = _ask(request)
    if not answer:
        return json.dumps({"refused": f"its shape cannot be computed: {_reason()}"})
    keep(request, answer)
    return answer


class _Program(NamedTuple):
    """The running program, and the file that it writes errors to."""

    process: "subprocess.Popen[str]"
    errors: IO[str]


_programs: list[_Program] = []  # the last one that was started
_one_at_a_time = threading.Lock()


def _ask(request: str) -> str:
    """The program's answer, "" if it failed; it is started if it does not run (any more)."""
    with _one_at_a_time:
        if _programs and _programs[-1].process.poll() is None:
            answer = _exchange(request)
            if answer:
                return answer
        _programs[:] = [_start()]
        return _exchange(request)


def _exchange(request: str) -> str:
    """One line to the running program and one from it; "" if it ended."""
    pipes = _programs[-1].process
    assert pipes.stdin is not None and pipes.stdout is not None
    with suppress(BrokenPipeError):
        pipes.stdin.write(f"{request}\n")
        pipes.stdin.flush()
        return pipes.stdout.readline().strip()
    return ""


def _start() -> _Program:
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the program has ended)
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", PROGRAM]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
    return _Program(process, errors)


def _reason() -> str:
    """The last line that the program wrote before it ended."""
    program = _programs[-1]
    program.process.wait()
    program.errors.seek(0)
    lines = program.errors.read().strip().splitlines()
    return lines[-1] if lines else f"{PROGRAM} ended with {program.process.returncode}"
