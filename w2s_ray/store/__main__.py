"""``python -m w2s_ray.store STORE ls | verify | repair | gc | export | import``.

Exit code 0: done, and the store is whole; 1: damage was found, or stays; 2: bad input; 74: the
system refused; 130: interrupted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from w2s_ray.errors import InputError, line_of
from w2s_ray.masking import masked
from w2s_ray.store.artifacts import Store
from w2s_ray.store.upkeep.inventory import Folder, read_studies
from w2s_ray.store.upkeep.remains import Remains
from w2s_ray.store.upkeep.trees import size_text
from w2s_ray.store.upkeep.verify import Damage, Verified

MOST_LINES = 20  # of one kind of thing that can go
SYSTEM, INTERRUPTED = 74, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](Store.open(options.store), options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(line_of(error), file=sys.stderr)
        return SYSTEM


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m w2s_ray.store",
        description="What a store holds, whether it is whole, what can go, archives of studies.",
    )
    parser.add_argument("store", metavar="STORE", help="folder or URI of the store")
    commands = parser.add_subparsers(dest="command", required=True)
    ls = commands.add_parser("ls", help="numbers of artifacts, studies and their cells, sizes")
    ls.add_argument("--json", action="store_true", help="print one JSON object")
    commands.add_parser("verify", help="read every file and compare it with its digest")
    repair = commands.add_parser("repair", help="as verify, and set aside what is damaged")
    gc = commands.add_parser("gc", help="remove what no study needs, and leftovers")
    gc.add_argument("--keep-damaged", action="store_true", help="keep what was set aside")
    for each in (repair, gc):
        each.add_argument("--yes", action="store_true", help="do it; without, it is only shown")
    export = commands.add_parser("export", help="write an archive of a study")
    export.add_argument("study", metavar="STUDY")
    export.add_argument("file", metavar="FILE", type=Path, help="ends in .tar or .tar.zst")
    take_in = commands.add_parser("import", help="take in an archive of export")
    take_in.add_argument("file", metavar="FILE", type=Path)
    return parser


def _ls(store: Store, options: argparse.Namespace) -> int:
    from w2s_ray.store.upkeep.overview import overview, show

    view = overview(store)
    if options.json:
        print(json.dumps(view.as_json()))
    else:
        show(view, Console())
    return 1 if view.damaged_records else 0


def _verify(store: Store, options: argparse.Namespace) -> int:
    verified = _verified(store)
    for damage in verified.damaged:
        _say(damage.line)
    _say(_summary(verified))
    return 1 if verified.damaged else 0


def _repair(store: Store, options: argparse.Namespace) -> int:
    from w2s_ray.store.upkeep.repair import made_again, set_aside

    verified, studies = _verified(store), read_studies(store)
    for damage in verified.damaged:
        _say(damage.line)
        for line in made_again(damage, studies):
            _say(f"  {line}")
    _say(_summary(verified))
    movable = [damage for damage in verified.damaged if damage.error is not None]
    if options.yes:
        for path in set_aside(store, movable):
            _say(f"set aside    {path}")
    elif movable:
        _say(f"nothing was changed; --yes sets {_counted(movable)} aside")
    stays = verified.damaged if not options.yes else len(verified.damaged) > len(movable)
    return 1 if stays else 0


def _verified(store: Store) -> Verified:
    from w2s_ray.store.upkeep.verify import verify

    return verify(store, Console(stderr=True))


def _gc(store: Store, options: argparse.Namespace) -> int:
    from w2s_ray.store.upkeep.collect import DamagedStore, collect, find, sizes

    try:
        found = find(store, keep_damaged=options.keep_damaged)
    except DamagedStore as error:
        print(error, file=sys.stderr)
        return 1
    groups: Mapping[str, Sequence[Folder | Remains]] = {
        "not needed": found.artifacts,
        "damaged": found.damaged,
        "leftovers": found.remains,
    }
    for name, items in groups.items():
        for item in items[:MOST_LINES]:
            reason = f", {item.why}" if isinstance(item, Remains) else ""
            _say(f"{name:<12} {item.path}  {size_text(sizes([item]))}{reason}")
        if len(items) > MOST_LINES:
            _say(f"{name:<12} and {len(items) - MOST_LINES:,} more")
    if found.kept:
        _say(
            f"{len(found.kept):,} folders that no study needs stay: "
            f"{len(found.live):,} claims of living processes are held on this store"
        )
    total = [item for items in groups.values() for item in items]
    if not options.yes:
        hint = "; nothing was removed, with --yes it is" if total else ""
        _say(f"can go       {len(total):,} items, {size_text(sizes(total))}{hint}")
        return 0
    removed = list(collect(store, found))
    _say(f"removed      {len(removed):,} items, {size_text(sizes(removed))}")
    return 0


def _export(store: Store, options: argparse.Namespace) -> int:
    from w2s_ray.store.upkeep.archive import export

    made = export(store, options.study, options.file, Console(stderr=True))
    _say(
        f"exported     {options.file}: {made.steps:,} steps in {made.folders:,} folders, "
        f"{size_text(made.bytes)}"
    )
    if made.missing:
        _say(f"note: {made.missing:,} steps of study {options.study} are not finished")
    return 0


def _import(store: Store, options: argparse.Namespace) -> int:
    from w2s_ray.store.upkeep.intake import take_in

    taken = take_in(store, options.file)
    _say(
        f"imported     study {taken.study}: {taken.committed:,} folders are new, "
        f"{taken.present:,} were there"
    )
    for note in taken.notes:
        _say(f"note: {note}")
    return 0


def _summary(verified: Verified) -> str:
    state = f"{len(verified.damaged):,} damaged" if verified.damaged else "whole"
    return (
        f"{state:<12} {verified.steps:,} artifacts, {verified.files:,} files, "
        f"{size_text(verified.bytes)}"
    )


def _counted(damages: Sequence[Damage]) -> str:
    return "1 artifact" if len(damages) == 1 else f"{len(damages):,} artifacts"


def _say(text: str) -> None:
    print(masked(text))


_COMMANDS: Mapping[str, Callable[[Store, argparse.Namespace], int]] = {
    "ls": _ls,
    "verify": _verify,
    "repair": _repair,
    "gc": _gc,
    "export": _export,
    "import": _import,
}

if __name__ == "__main__":
    sys.exit(main())
