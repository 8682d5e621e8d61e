"""``python -m benchmarks``: measures the rows of docs/benchmarks.md one after another.

The rows against TRL need the environment that ``make bench`` creates. Run it on a machine without
other work.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import (
    decoding,
    heads,
    inference,
    preference,
    ray_runs,
    stored_steps,
    training,
    whole_studies,
)
from benchmarks.machine import facts
from benchmarks.measure import Row
from benchmarks.options import Options
from benchmarks.page import line, save, terminal_table, write_page
from benchmarks.sides import REPOSITORY

ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "tokens": training.tokens_computed,
    "trl": training.trl,
    "long_prompts": training.long_prompts,
    "dpo": preference.dpo,
    "features": inference.features,
    "decoding": decoding.decoding,
    "gemm": training.gemm,
    "heads": heads.heads_together,
    "scaling": heads.scaling,
    "stored_steps": stored_steps.stored_steps,
    "quickstart": whole_studies.quickstart_cold,
    "second_run": whole_studies.second_run,
    "ray": ray_runs.ray_against_local,
    "empty_steps": ray_runs.empty_steps,
    "inference_workers": ray_runs.inference_workers,
}
ON_REQUEST = {"trl_tuning": training.tuning}  # takes long; the page has it as prose
NEED_TRL = {"trl", "long_prompts", "dpo", "trl_tuning"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for bad input."""
    given = _parser().parse_args(arguments)
    available = {**ROWS, **ON_REQUEST}
    wanted = [name for name in given.rows.split(",") if name] or list(ROWS)
    if unknown := [name for name in wanted if name not in available]:
        expected = f"expected some of {', '.join(available)}"
        print(f"--rows: given {unknown[0]!r}, {expected}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        execution = {}
        if given.micro_batch_tokens:
            execution["micro_batch_tokens"] = given.micro_batch_tokens
        options = Options(
            scratch=(given.scratch or Path(temporary)).resolve(),
            quick=given.quick,
            rounds=1 if given.quick else given.rounds,
            threads=given.threads or Options.threads_here(),
            trl_python=given.trl_python.absolute(),  # resolving would leave the environment
            execution=execution,
        )
        if NEED_TRL & set(wanted) and not options.trl_python.exists():
            print(f"{options.trl_python} is missing; `make bench` creates it", file=sys.stderr)
            return 2
        options.scratch.mkdir(parents=True, exist_ok=True)
        run = {
            "command": _command(given),
            "threads": options.threads,
            "rounds": options.rounds,
            **facts(options.trl_python),
        }
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 160)
        table = terminal_table()
        for name in wanted:
            for row in available[name](options):
                table.add_row(*line(row))
                console.print(" · ".join(part for part in line(row) if part), markup=False)
                console.print(f"    {row.note}", markup=False, highlight=False)
                if not given.quick:  # saved at once: a later row may fail
                    save(given.results, {row.name: row}, run)
                    write_page(given.page, given.results)
        console.print(table)
    return 0


def _command(given: argparse.Namespace) -> str:
    """The command to repeat this run elsewhere, without this machine's paths."""
    chosen = {
        "--rows": given.rows,
        "--rounds": given.rounds,
        "--threads": given.threads,
        "--micro-batch-tokens": given.micro_batch_tokens,
    }
    parts = [f"{name} {value}" for name, value in chosen.items() if value]
    return " ".join(["python -m benchmarks", *parts])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows",
        default="",
        metavar="A,B",
        help=f"rows to measure, of {', '.join(ROWS)} (default: these), {', '.join(ON_REQUEST)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each pair of sides is measured"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of torch on both sides (default: all cores)"
    )
    parser.add_argument(
        "--micro-batch-tokens", type=int, help="micro-batch of our training, in tokens"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument(
        "--scratch", type=Path, help="a folder to keep and reuse (default: a temporary one)"
    )
    docs = REPOSITORY / "docs"
    parser.add_argument("--page", type=Path, default=docs / "benchmarks.md")
    parser.add_argument("--results", type=Path, default=docs / "benchmarks.json")
    parser.add_argument("--trl-python", type=Path, default=Options.trl_python)
    return parser


if __name__ == "__main__":
    sys.exit(main())
