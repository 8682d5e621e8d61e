"""Renders conversations with a chat template, as a program of its own that can be ended.

It reads a request of ``templates`` as JSON and prints the first conversation that is too much, with
the reason, or null. Errors of the template are not its concern. Nothing of ours is imported here.
"""

import json
import resource
import sys
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """The tag with which transformers marks what the assistant says; its content is rendered."""

    tags = {"generation"}  # noqa: RUF012 (as jinja declares it)

    def parse(self, parser: Any) -> Any:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that transformers makes, as far as time and memory are concerned."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = str
    return made


def to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """The filter of transformers."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def refuse(message: str) -> None:
    """What templates call to refuse a conversation."""
    raise jinja2.TemplateError(message)


def first_too_long(request: dict[str, Any]) -> dict[str, Any] | None:
    """The first conversation whose text is longer than the limit, or needs too much memory."""
    number = 0
    try:
        template = environment().from_string(request["template"])
        for number, messages in enumerate(request["conversations"]):
            try:
                length = 0
                for piece in template.generate(messages=messages, **request["variables"]):
                    length += len(piece)
                    if length > request["characters"]:
                        return {"conversation": number, "is_memory": False}
            except MemoryError:
                raise
            except Exception:  # the template refuses the conversation: its rendering says so
                continue
    except MemoryError:
        return {"conversation": number, "is_memory": True}
    except Exception:  # no template
        return None
    return None


def main() -> None:
    request = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    answer = first_too_long(request)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
