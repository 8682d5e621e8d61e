"""The console script ``w2s``, and ``python -m w2s_ray``: the command of ``study``.

Signals are watched before anything else is imported, which takes a second.
"""

from typing import NoReturn

from w2s_ray.ending import command


def main() -> NoReturn:
    """Runs the command in this process and exits."""
    command.start()
    from w2s_ray.study import main as study

    command.run(study)


if __name__ == "__main__":
    main()
