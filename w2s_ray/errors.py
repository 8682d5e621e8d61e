"""The exception that means "the user can mend this": one line, exit code 2, no traceback."""


class InputError(ValueError):
    """A mistake in what the user gave (spec, data, model, options), told in one line.

    The line names the place, the value, what was expected and, where there is one, the nearest
    right name.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
