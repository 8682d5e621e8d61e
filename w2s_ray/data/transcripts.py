r"""Transcripts in the style of HH-RLHF: whether a text is one, where its prompt ends, its turns.

A transcript begins with ``\n\nHuman:``. Files differ in the white space around it: it may have been
stripped, cut to one line break, or have the line ends of Windows. Such a text is a transcript too
and keeps its characters.
"""

import re

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ASSISTANTS = (ASSISTANT, ASSISTANT.replace("\n", "\r\n"))
_BEGINNING = re.compile(r"\s*Human:")
_MARK = re.compile(r"(?:\r\n\r\n|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(text: str) -> bool:
    r"""Whether a text is a transcript, whose white space at both ends may be another.

    One that does not begin with ``\n\nHuman:`` and ends with "Assistant:" is none: its answer,
    which was blank, is gone.
    """
    if text.startswith(HUMAN):
        return _has_assistant(text)
    return begins_as_transcript(text) and not text.endswith(_ASSISTANTS)


def begins_as_transcript(text: str) -> bool:
    """Whether a text begins with a turn of the user and has one of the assistant."""
    return _BEGINNING.match(text) is not None and _has_assistant(text)


def end_of_assistant(text: str, before: int) -> int:
    """Where the mark of the assistant's last turn that begins before a position ends; or -1."""
    start = text.rfind(ASSISTANT, 0, before)
    end = start + len(ASSISTANT) if start >= 0 else -1
    if "\r" in text:
        start = text.rfind(_ASSISTANTS[1], 0, before)
        end = max(end, start + len(_ASSISTANTS[1])) if start >= 0 else end
    return end


def roles_and_texts(transcript: str) -> list[tuple[str, str]]:
    """The role and the text of each turn, without the white space around the text.

    Args:
        transcript: begins with the mark of a turn, whatever white space is before it.
    """
    parts = _MARK.split(f"\n\n{transcript.lstrip()}")
    return [
        (_ROLES[speaker], text.strip())
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def begins_with_mark(text: str) -> bool:
    """Whether a text begins with the mark of a turn, with the line breaks before it."""
    return _MARK.match(text) is not None


def _has_assistant(text: str) -> bool:
    return ASSISTANT in text or _ASSISTANTS[1] in text
