"""What a check says of an answer.

Rules of ``families`` run in this process. A checker that the spec names is the researcher's own
Python: it runs in a process of its own, which is stopped and started anew if a call does not end in
time. Whatever it raises or returns is an error of that answer alone.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module

from w2s_ray.errors import InputError
from w2s_ray.spec.prompts import Prompts
from w2s_ray.tasks.checker_process import Check, CheckerProcess, Verdict, function_of
from w2s_ray.tasks.families import obeys

Checker = Callable[[Check, str, str], Verdict]
"""(check, prompt, answer) → verdict."""


@contextmanager
def checker_of(spec: Prompts) -> Iterator[Checker]:
    """The checker of the prompts, which may hold a process while the block lasts."""
    if spec.checker is None:
        yield by_rule
        return
    process = CheckerProcess(spec.checker, spec.timeout_seconds)
    try:
        yield process
    finally:
        process.stop()


def by_rule(check: Check, prompt: str, text: str) -> Verdict:
    """1 if the answer obeys the rule of ``check``, else 0."""
    return Verdict(float(obeys(check, text)))


def check_checker(spec: Prompts) -> None:
    """Refuses a checker that cannot be imported.

    Raises:
        InputError: there is no such module or function.
    """
    if spec.checker is not None:
        checker_identity(spec.checker)


def checker_identity(entry_point: str) -> dict[str, str]:
    """The name of a checker, and the digest of the source of its module.

    Raises:
        InputError: there is no such module or function.
    """
    try:
        source = inspect.getsource(import_module(function_of(entry_point).__module__))
    except (OSError, TypeError) as error:
        raise InputError(
            f"prompts.checker: given {entry_point}, whose source cannot be read ({error}), "
            "expected a Python function",
            ("prompts", "checker"),
        ) from None
    return {"name": entry_point, "source": sha256(source.encode()).hexdigest()}
