"""The tables of a study of generated text, made from the store alone: ``results`` has one row per
cell, ``samples`` one per judged answer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.contents import read_parquet
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.columns import schema
from w2s_ray.store.names import (
    PERPLEXITIES,
    PROMPTS,
    SAMPLES,
    VERDICTS,
    results_file,
    samples_file,
)
from w2s_ray.store.results import (
    OWN_STEPS,
    Cell,
    Records,
    Status,
    first_failure,
    marked_unfinished,
    recovered,
)
from w2s_ray.store.tables import writing_table
from w2s_ray.store.text_columns import (
    OF_SPLIT,
    SAMPLE_COLUMNS,
    TEXT_AXES,
    TEXT_RESULTS,
    TEXT_RESULTS_SCHEMA_VERSION,
)

PROMPTS_OF = "prompts_"
"""Begins the roles of prompts; the name of their split follows."""
BESIDE = ("perplexity", "audit")
"""Roles of what is said of answers beside their verdicts, where the spec asks for it."""
UPSTREAM = "upstream_"
"""Begins the roles of the steps that a cell's answers depend on."""
_SORTED_BY = tuple((column.name, "ascending") for column in (*TEXT_AXES, TEXT_RESULTS[0]))


def text_results_table(
    store: Store, cells: Sequence[Cell], records: Records | None = None
) -> pa.Table:
    """One row per cell, in the columns of ``TEXT_RESULTS``, sorted by axes and key."""
    if records is None:
        records = store.records(key for cell in cells for key in cell["keys"].values())
    failures = store.failures()
    rows = [_row(cell["cell"], cell["keys"], records, failures) for cell in cells]
    return pa.Table.from_pylist(rows, schema=schema(TEXT_RESULTS)).sort_by(list(_SORTED_BY))


def write_text_results(
    store: Store, study: str, cells: Sequence[Cell], *, unfinished: bool = False
) -> tuple[pa.Table, str]:
    """Writes ``results/<study>.parquet``; returns the table, and the path or URI of the file.

    Args:
        unfinished: as of ``results.write_results``.
    """
    table = text_results_table(store, cells)
    if unfinished:
        table = marked_unfinished(table)
    with writing_table(store, results_file(study)) as path:
        parquet.write_table(table, path, compression="zstd")
    return table, store.location(results_file(study))


def write_samples(store: Store, study: str, cells: Sequence[Cell]) -> str:
    """Writes ``samples/<study>.parquet``, one row group per cell; returns its path or URI."""
    columns = schema(SAMPLE_COLUMNS)
    judged = {cell["keys"]["student_evaluate"]: cell["keys"] for cell in cells}
    read = {key: _read_by(keys) for key, keys in judged.items()}
    wanted = {step for of_cell in read.values() for step in of_cell.values()}
    finished = store.finished_among(wanted)
    artifacts = store.artifacts(key for key in wanted if key in finished)
    with (
        writing_table(store, samples_file(study)) as path,
        parquet.ParquetWriter(path, columns, compression="zstd") as writer,
    ):
        for key, of_cell in read.items():
            if all(step in finished for role, step in of_cell.items() if role not in BESIDE):
                opened = {role: artifacts(of) for role, of in of_cell.items() if of in finished}
                rows = list(_samples(key, opened))
                writer.write_table(pa.Table.from_pylist(rows, schema=columns))
    return store.location(samples_file(study))


def _row(
    cell: Mapping[str, Any],
    keys: Mapping[str, str],
    records: Records,
    failures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    metrics = {role: records.get(key, {}).get("metrics", {}) for role, key in keys.items()}
    status, error = _status(keys, records, failures)
    splits = metrics["student_evaluate"].get("splits", {})
    row: dict[str, Any] = {axis.name: cell.get(axis.name) for axis in TEXT_AXES}
    best = records.get(keys["student_evaluate"], {}).get("config", {}).get("best_of_n")
    outside, audit = ({} if best else metrics.get(role, {}).get("splits", {}) for role in BESIDE)
    for split, begin in (("test", ""), ("transfer", "transfer_")):
        scores = {**splits.get(split, {}), **outside.get(split, {})}
        scores["audit_rate"] = audit.get(split, {}).get("rate")
        row |= {f"{begin}{column.name}": scores.get(column.name) for column in OF_SPLIT}
    for role in ("weak", "ceiling"):
        of_role = metrics[f"{role}_evaluate"].get("splits", {})
        row[f"{role}_rate"] = of_role.get("test", {}).get("rate")
    model, sampled = metrics.get("model", {}), metrics["student"]
    code = records.get(keys["student_evaluate"], {}).get("provenance", {}).get("code", {})
    row.update(
        key=keys["student_evaluate"],
        status=status,
        error=error,
        pgr=recovered(row["weak_rate"], row["rate"], row["ceiling_rate"]),
        seconds=sampled.get("seconds"),
        tokens=sampled.get("tokens"),
        train_seconds=model.get("seconds"),
        trained_rows=_trained_rows(model),
        left_out_rows=_left_out(model),
        align_pairs=_align_pairs(metrics),
        final_loss=model.get("final_loss"),
        samples_key=keys["student"],
        model_key=keys.get("model"),
        weak_key=keys["weak_evaluate"],
        ceiling_key=keys["ceiling_evaluate"],
        code_commit=code.get("commit"),
        schema_version=TEXT_RESULTS_SCHEMA_VERSION,
    )
    return row


def _align_pairs(metrics: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Pairs that aligned a model on the way to the cell's answers; None: none did."""
    aligned = [of for role, of in metrics.items() if role.endswith("_align") and "rows" in of]
    return _trained_rows(aligned[0]) if aligned else None


def _left_out(metrics: Mapping[str, Any]) -> int | None:
    """Answers that cannot be learned from, and pairs of the same tokens; None: nothing trained."""
    return metrics.get("left_out", 0) + metrics.get("identical_rows", 0) if metrics else None


def _trained_rows(metrics: Mapping[str, Any]) -> int | None:
    """Rows of which a loss is computed: two answers of the same tokens are left out."""
    return metrics["rows"] - metrics.get("identical_rows", 0) if "rows" in metrics else None


def _status(
    keys: Mapping[str, str], records: Records, failures: Mapping[str, Mapping[str, Any]]
) -> Status:
    """The status of a cell, as ``results.cell_status``."""
    if all(keys[role] in records for role in OWN_STEPS):
        others = [role for role in keys if role not in OWN_STEPS]
        return Status("done", first_failure(others, keys, failures))
    if error := first_failure(OWN_STEPS, keys, failures):
        return Status("failed", error)
    upstream = [role for role in keys if role.startswith(UPSTREAM)]
    if error := first_failure(upstream, keys, failures):
        return Status("blocked", error)
    return Status("pending", None)


def _read_by(keys: Mapping[str, str]) -> dict[str, str]:
    """The steps, by role, that the samples of a cell are read from."""
    return {
        role: step
        for role, step in keys.items()
        if role in (*OWN_STEPS, *BESIDE) or role.startswith(PROMPTS_OF)
    }


def _samples(key: str, artifacts: Mapping[str, Artifact]) -> Iterator[dict[str, Any]]:
    """The rows of one cell; of best_of_n, the best sample of each prompt."""
    samples = read_parquet(artifacts["student"].file(SAMPLES)).to_pylist()
    verdicts = read_parquet(artifacts["student_evaluate"].file(VERDICTS)).to_pylist()
    splits = dict.fromkeys(sample["split"] for sample in samples)
    prompts = {
        row["prompt_id"]: row
        for split in splits
        for row in read_parquet(artifacts[f"{PROMPTS_OF}{split}"].file(PROMPTS)).to_pylist()
    }
    if "perplexity" in artifacts:
        outside = read_parquet(artifacts["perplexity"].file(PERPLEXITIES)).to_pylist()
        samples = [
            {**sample, "outside_log_prob": of["log_prob"], "outside_tokens": of["tokens"]}
            for sample, of in zip(samples, outside, strict=True)
        ]
    if "audit" in artifacts:
        audit = read_parquet(artifacts["audit"].file(VERDICTS))["reward"].to_pylist()
        samples = [
            {**sample, "audit_reward": of} for sample, of in zip(samples, audit, strict=True)
        ]
    judged = list(zip(samples, verdicts, strict=True))
    if artifacts["student_evaluate"].record["config"]["best_of_n"]:
        judged = best_samples(judged)
    for sample, verdict in judged:
        prompt, text = prompts[sample["prompt_id"]], sample["text"]
        yield {
            "key": key,
            **{name: sample[name] for name in ("split", "prompt_id", "sample", "text")},
            **{name: prompt[name] for name in ("family", "topic", "prompt")},
            "words": None if text is None else len(text.split()),
            "tokens": len(sample["tokens"]),
            "cut_off": int(sample["cut_off"]),
            "reward": verdict["reward"],
            "error": verdict["error"],
            "audit_reward": sample.get("audit_reward"),
            "log_prob": sample["log_prob"],
            "log_prob_reference": sample["log_prob_reference"],
            "outside_log_prob": sample.get("outside_log_prob"),
            "outside_tokens": sample.get("outside_tokens"),
        }


def best_samples(judged: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Any]:
    """The sample with the highest reward of each prompt, the first of equals."""
    best: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for sample, verdict in judged:
        held = best.get(sample["prompt_id"])
        reward = -1.0 if verdict["reward"] is None else verdict["reward"]
        if held is None or reward > (-1.0 if held[1]["reward"] is None else held[1]["reward"]):
            best[sample["prompt_id"]] = (sample, verdict)
    return list(best.values())
