"""``python -m w2s_ray.hub STORE STUDY --to OWNER/NAME``: uploads a study to the Hugging Face Hub.

Exit codes: ``ending.codes``.
"""

from w2s_ray.ending import command

if __name__ == "__main__":
    command.start()  # before the imports below, which take a second

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from w2s_ray.ending.options import OptionParser
from w2s_ray.errors import SystemFault, line_of
from w2s_ray.hub.contents import CARD, Upload, of_model, of_results


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.code_of(partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m w2s_ray.hub",
        description="Upload the results of a study, or an exported model, to the Hugging Face Hub.",
    )
    parser.add_argument("store", metavar="STORE", help="folder of the store")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("study", metavar="STUDY", nargs="?", help="its tables and report")
    what.add_argument("--model", metavar="KEY", help="the exported model of the step KEY instead")
    parser.add_argument("--to", metavar="OWNER/NAME", required=True, help="repository on the Hub")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    parser.add_argument("--dry-run", action="store_true", help="list the files; upload nothing")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.model is not None:
        upload = of_model(options.store, options.model)
    else:
        upload = of_results(options.store, options.study)
    print(f"{upload.repo_type} {options.to}:")
    print("\n".join(upload.lines()))
    if options.dry_run:
        print("nothing was uploaded (--dry-run)")
        return 0
    print(f"uploaded: {push(upload, options.to, is_private=options.private)}")
    return 0


def push(upload: Upload, repo: str, *, is_private: bool) -> str:
    """Makes the repository if there is none, and uploads the files in one commit.

    Returns:
        Address of the repository.

    Raises:
        SystemFault: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    kind = upload.repo_type
    with tempfile.TemporaryDirectory() as folder:
        for path, file in upload.files.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, Path(folder) / path)
        if upload.card is not None:
            (Path(folder) / CARD).write_text(upload.card, encoding="utf-8")
        try:
            api = HfApi()
            made = api.create_repo(repo, repo_type=kind, private=is_private or None, exist_ok=True)
            api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder)
        except Exception as error:  # of HTTP, names, tokens: each library has its own
            raise SystemFault(
                f"{repo}: nothing was uploaded to the Hub: {line_of(error)}"
            ) from error
    return str(made)


if __name__ == "__main__":
    command.run(main)
