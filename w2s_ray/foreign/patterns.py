"""Regular expressions from a spec, matched within a time limit.

Python's matcher may need longer than the age of the universe for a pattern like ``(a+)+``, holds
the interpreter's lock meanwhile, and has no time limit of its own. No check of the pattern alone
tells which ones are harmless (``(a|a)*`` and ``.*.*.*.*x`` nest nothing), so the texts at hand are
matched once, in a process that can be ended. What was quick there is quick again.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import limit

_PROGRAM = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
matches = re.compile(pattern).fullmatch
json.dump([number for number, text in enumerate(texts) if matches(text)], sys.stdout)
"""


def check_pattern(pattern: str) -> str:
    """What is wrong with a text as a regular expression; "" if nothing is."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "its groups are nested too deep"
    return ""


def full_matches(pattern: str, texts: Sequence[str], what: str) -> list[str]:
    """The texts that a regular expression matches whole, in their order.

    Args:
        pattern: one that ``check_pattern`` accepts.
        texts: any number of them; all together have the time limit.
        what: the texts by a plural, for the message.

    Raises:
        InputError: it takes longer than the limit.
    """
    seconds = limit("pattern.seconds")
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, list(texts)]),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"given {pattern!r}, which is not matched with {len(texts):,} {what} in {seconds} s, "
            "expected a regular expression without repeats inside repeats (limit pattern.seconds)"
        ) from None
    return [texts[number] for number in json.loads(answer.stdout)]
