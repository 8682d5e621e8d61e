"""``python -m w2s_ray.export STORE KEY FOLDER``: a language model that a study has trained.

Exit codes: ``ending.codes``.
"""

from w2s_ray.ending import command

if __name__ == "__main__":
    command.start()  # before the imports below, which take seconds

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from w2s_ray.ending.options import OptionParser
from w2s_ray.export.language_model import export


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.code_of(partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m w2s_ray.export",
        description="Write a language model that a study has trained as a folder that transformers "
        "loads (AutoModelForCausalLM), with its tokenizer and a model card.",
    )
    parser.add_argument("store", metavar="STORE", help="folder or URI of the store")
    parser.add_argument(
        "key",
        metavar="KEY",
        help="of the step that trained it (model_key in results), or how it begins",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="is created, and must be empty")
    parser.add_argument(
        "--source",
        metavar="MODEL",
        help="where the model before training is now, if not where the study read it",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    export(options.store, options.key, options.folder, options.source)
    print(f"exported     {options.folder}")
    return 0


if __name__ == "__main__":
    command.run(main)
