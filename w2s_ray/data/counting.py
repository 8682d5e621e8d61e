"""Counts with their noun in singular or plural, for messages."""


def counted(count: int, singular: str, plural: str = "") -> str:
    """A count and its noun, such as "1 group" and "2,000 groups".

    Args:
        plural: the singular with an s if empty.
    """
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
