"""`docs/cluster.md` says what is there: bash that parses, studies that load, names that exist."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

from benchmarks import worlds
from tests.testing.markdown import blocks
from w2s_ray.capacity.gpu_types import gpu_type
from w2s_ray.driver.options import parser
from w2s_ray.spec.schema import Execution

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
COMMANDS = [block.code for block in blocks(PAGE) if block.language == "bash"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_block_is_valid_bash(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_study_it_runs_is_one_with_options_there_are() -> None:
    lines = re.findall(r"python -m w2s_ray\.study ([^\n'|&]*)", "\n".join(COMMANDS))
    assert len(lines) >= 3
    for line in lines:
        options = parser().parse_args(shlex.split(line, comments=True))
        folders = (ROOT, ROOT / "study_specs")  # the latter as the working directory of a Ray job
        assert any((folder / options.spec).is_file() for folder in folders)


def test_the_fields_it_explains_are_fields_of_execution() -> None:
    section = PAGE.split("## Models larger than one GPU")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {"gpu_type", "workers", "zero_stage", "offload", "min_workers"} <= named
    assert named <= set(Execution.model_fields)


def test_its_table_of_worker_types_is_that_of_cluster_yaml() -> None:
    types = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    row = r"^\| `(gpu-\w+)` \| (\S+) \|.*?\| (?:up to )?(\d+) \| `(\w+)` \|"
    rows = re.findall(row, PAGE, re.MULTILINE)
    known = json.loads((ROOT / "w2s_ray" / "capacity" / "gpu_types.json").read_text())["types"]
    assert {gpu for *_, gpu in rows} <= set(known)
    assert [tuple(cells) for *cells, _ in rows] == [
        (name, kind["node_config"]["InstanceType"], str(kind["max_workers"]))
        for name, kind in types.items()
        if name != "head"
    ]


def test_the_script_for_slurm_is_one_that_ray_and_the_command_take(tmp_path: Path) -> None:
    """Run with stand-ins for Slurm and Ray; what they would be told is asked of Ray and of us."""
    told = tmp_path / "told"
    for name, body in {
        "scontrol": "echo node-7; echo node-8",
        "srun": f'while [ "$1" != ray ]; do shift; done; printf "%s\\n" "$@" > {told}',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node-[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
    }
    script = ["bash", str(ROOT / "docs" / "slurm.sbatch"), "study_specs/qwen.yaml", "--store", "/s"]
    subprocess.run(script, env=environment, check=True)
    words = told.read_text().splitlines()
    split = words.index("--")
    assert words[:2] == ["ray", "symmetric-run"]
    context = symmetric_run.make_context("_", words[2:split], resilient_parsing=True)
    assert context.params["address"] == "node-7:24567" and context.params["min_nodes"] == 2
    started = curate_and_validate_ray_start_args(words[2:split])
    assert start.make_context("start", ["--head", *started])
    assert words[split + 1 : split + 6] == [
        "env",
        "RAY_ADDRESS=auto",
        "python",
        "-m",
        "w2s_ray.study",
    ]
    options = parser().parse_args(words[split + 6 :])
    assert (str(options.spec), options.store) == ("study_specs/qwen.yaml", "/s")


def test_its_table_of_worlds_is_the_planners() -> None:
    for name in ("H100", "H200"):
        for line in worlds.lines(gpu_type(name)):
            assert f"{line}\n" in PAGE


def test_the_files_it_names_exist() -> None:
    for name in re.findall(r"(?:docs|tests|study_specs|w2s_ray)/[\w./]*\w\.(?:ya?ml|py|md)", PAGE):
        assert (ROOT / name).is_file(), name
    for link in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link
