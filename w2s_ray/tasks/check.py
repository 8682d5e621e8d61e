"""The verdict on one answer: by a rule, or by the researcher's own Python.

The researcher's checker is run only where the spec names it: it is their own code, as the program
itself is. It runs in a process of its own, so that one that does not end can be stopped.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from w2s_ray.errors import InputError, one_line
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.classifiers import TextClassifier
from w2s_ray.tasks.families import RULES_VERSION, obeys

_BLOCK = 4096  # bytes read at a time
_FIELD = ("prompts", "checker")
_START_SECONDS = 120.0
"""Time in which the module of a checker is imported."""
MOST_UNENDED = 5
"""Prompts in a row after which a check that does not end is tried on no other. An answer that takes
for ever may have others to the same prompt beside it, which do so too."""


class Verdict(NamedTuple):
    """What a check says of an answer.

    Attributes:
        reward: from 0 to 1, 1 if the answer is right; None if the check failed.
        error: why it failed, in one line; None if it did not.
    """

    reward: float | None
    error: str | None


class Checker(Protocol):
    """Gives verdicts; a context manager, since one may hold a process. For one thread."""

    def __call__(self, check: Mapping[str, Any], prompt: str, text: str) -> Verdict:
        """The verdict on the answer ``text`` to ``prompt``."""

    def close(self) -> None:
        """Ends the process, if there is one."""

    def __enter__(self) -> Self:
        """The checker itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As ``close``."""


class _Closing:
    """A context manager that closes itself at the end."""

    def close(self) -> None:
        """Nothing, where there is no process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class RuleChecker(_Closing):
    """Verdicts of the rule families, in this process: 1.0 or 0.0."""

    def __call__(self, check: Mapping[str, Any], prompt: str, text: str) -> Verdict:
        """The verdict on ``text``; the prompt does not matter."""
        return Verdict(float(obeys(check, text)), None)


class ClassifierChecker(_Closing):
    """Verdicts of a classifier of texts, in this process: 1.0 if it says the wanted class."""

    def __init__(self, classifier: TextClassifier) -> None:
        self._classifier = classifier

    def __call__(self, check: Mapping[str, Any], prompt: str, text: str) -> Verdict:
        """The verdict on the prompt with ``text`` after it."""
        (log_odds,) = self._classifier.log_odds([f"{prompt} {text.strip()}"])
        return Verdict(float(log_odds > 0.0), None)


class OwnChecker(_Closing):
    """Verdicts of a function that the researcher names, from a process that can be stopped.

    The process starts with the first answer, and again after one that did not end.

    Args:
        entry: ``package.module:function``, importable here or from the working directory; it is
            called as ``function(check, prompt, text)``.
        timeout_seconds: of one check.
    """

    def __init__(self, entry: str, timeout_seconds: float) -> None:
        self._entry, self._timeout = entry, timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._file: str | None = None
        self._unended: set[str] = set()  # prompts in a row

    def __call__(self, check: Mapping[str, Any], prompt: str, text: str) -> Verdict:
        """The verdict on ``text``; a check that fails is one with the reason.

        Raises:
            InputError: the function cannot be imported.
            ValueError: it has not ended for so many prompts in a row.
        """
        self.start()
        request = json.dumps({"check": dict(check), "prompt": prompt, "text": text})
        message = self._exchange(request.encode() + b"\n", self._timeout)
        self._unended = self._unended | {prompt} if "unended" in message else set()
        if len(self._unended) == MOST_UNENDED:
            raise ValueError(
                f"{self._entry} did not end within {self._timeout:g} seconds (prompts."
                f"timeout_seconds) for answers to {MOST_UNENDED} prompts in a row; no other is "
                "checked"
            )
        reward, error = message.get("reward"), message.get("error")
        if isinstance(reward, float):
            return Verdict(reward, None)
        return Verdict(None, one_line(str(error or "the checker gave no verdict")))

    def start(self) -> str | None:
        """Starts the process, if there is none, and imports the function.

        Returns:
            The file of its module; None for one without a file.

        Raises:
            InputError: it cannot be imported.
        """
        if self._process is not None:
            return self._file
        paths = [path for path in sys.path if path]
        worker = str(Path(__file__).with_name("checker_worker.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-P", worker, self._entry, str(self._timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        message = self._exchange(b"", _START_SECONDS)
        if "file" not in message:
            self.close()
            reason = message.get("error", "no answer")
            module = self._entry.partition(":")[0]
            if f"No module named {module!r}" in reason:
                reason += (
                    " in the working directory or on Python's path (the spec's folder is neither)"
                )
            raise InputError(
                f"prompts.checker: given {self._entry}, which cannot be imported: {reason}", _FIELD
            )
        self._file = message["file"]
        return self._file

    def identity(self) -> dict[str, str]:
        """As ``checker_identity``, of the file as it is now."""
        file = self.start()
        try:
            content = Path(file or "").read_bytes()
        except OSError:
            raise InputError(
                f"prompts.checker: given {self._entry}, whose module is {file}, expected a Python "
                "file",
                _FIELD,
            ) from None
        return {"name": self._entry, "source": sha256(content).hexdigest()}

    def close(self) -> None:
        """Kills the process and those that it started, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.wait()

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Sends a line and receives one, or says why none came; then the process is ended."""
        try:
            received = self._received(request, time.monotonic() + seconds)
        except TimeoutError:
            self.close()
            error = f"the checker did not end within {seconds:g} seconds"
            return {"error": error, "unended": True}
        except BaseException:  # its answer would be taken for the next one's
            self.close()
            raise
        if not received.endswith(b"\n"):
            code = self._exit_code()
            self.close()
            return {"error": f"the checker's process ended with exit code {code}"}
        message: dict[str, Any] = json.loads(received)
        return message

    def _received(self, request: bytes, deadline: float) -> bytes:
        """The process's line after a request; what there is of it if the process ends.

        Raises:
            TimeoutError: there is none at the deadline.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        reading, writing = process.stdout.fileno(), process.stdin.fileno()
        os.set_blocking(writing, False)
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if request:
            poll.register(writing, select.POLLOUT)
        received = b""
        while not received.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            ready = {file for file, _ in poll.poll(remaining * 1000)}
            if writing in ready:
                try:
                    request = request[os.write(writing, request) :]
                except BrokenPipeError:
                    request = b""
                if not request:
                    poll.unregister(writing)
            if reading in ready:
                block = os.read(reading, _BLOCK)
                received += block
                if not block:
                    break
        return received

    def _exit_code(self) -> int | None:
        """The code of a process that has closed its output; None if it goes on."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(1) if self._process else None
        return None


def checker_of(spec: Prompts) -> Checker:
    """What gives the verdicts on answers to these prompts.

    The researcher's own Python is imported and run where ``spec.checker`` names it, and only there;
    close the checker, or use it as a context manager, to end its process.
    """
    if spec.checker is None:
        return RuleChecker()
    return OwnChecker(spec.checker, spec.timeout_seconds)


def checks_identity(spec: Prompts, checker: Checker | None = None) -> dict[str, Any]:
    """What verdicts depend on beside answers and the checks of their prompts.

    Args:
        checker: the one that gives them, if it is there already.

    Raises:
        InputError: the checker cannot be imported.
    """
    if spec.classifier is not None:
        return {}  # a classifier is an input of the judge
    if spec.checker is None:
        return {"rules": RULES_VERSION}
    own = checker if isinstance(checker, OwnChecker) else None
    identity = own.identity() if own else checker_identity(spec.checker)
    return {**identity, "timeout_seconds": spec.timeout_seconds}


def check_checker(spec: Prompts) -> None:
    """Refuses a checker that cannot be imported, before work is spent.

    Raises:
        InputError: it cannot.
    """
    if spec.checker is not None:
        checker_identity(spec.checker)


def checker_identity(entry: str) -> dict[str, str]:
    """The name of the researcher's checker, and a digest of its module's file.

    What that module imports is not seen.

    Args:
        entry: ``package.module:function``.

    Raises:
        InputError: it cannot be imported, or its module is no file.
    """
    with OwnChecker(entry, _START_SECONDS) as checker:
        return checker.identity()
