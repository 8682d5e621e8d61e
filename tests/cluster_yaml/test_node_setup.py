"""What a machine of `cluster.yaml` installs, and the image that has it; nothing is downloaded."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from scripts import bake_image

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "scripts" / "node_setup.sh"
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Path], list[str]]:
    """Runs a node_setup.sh with stubs for what downloads; returns what it called."""
    told = tmp_path / "told"
    stub = f'#!/bin/bash\necho "$(basename "$0") $*" >> {told}\n'
    programs = tmp_path / "bin"
    make = (
        f"mkdir -p ~/venv/bin; cp {programs}/sudo ~/venv/bin/uv; cp {programs}/sudo ~/venv/bin/pip"
    )
    programs.mkdir()
    for name, body in {"sudo": stub, "python3": f"{stub}{make}\n"}.items():
        (programs / name).write_text(body)
        (programs / name).chmod(0o755)

    def once(setup: Path) -> list[str]:
        told.write_text("")
        environment = {"HOME": str(tmp_path), "PATH": f"{programs}:/usr/bin:/bin"}
        subprocess.run(["bash", str(setup)], env=environment, check=True)
        return told.read_text().splitlines()

    return once


def test_a_machine_installs_once_with_the_pinned_versions(
    run: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    calls = run(SETUP)
    packages = " ".join(call for call in calls if "apt-get" in call)
    assert {"g++", "ninja-build", "libaio-dev"} <= set(packages.split())  # DeepSpeed compiles
    installs = [call for call in calls if call.startswith("uv pip install")]
    assert installs and all("-c constraints.txt" in call for call in installs)
    assert run(SETUP) == []
    (tmp_path / "venv" / ".installed").write_text("made of other files")
    assert [call for call in run(SETUP) if call.startswith("uv")] == installs


def test_machines_and_images_have_every_extra_that_a_study_may_need() -> None:
    """With [aws] alone a Qwen study would be refused on its cluster: it needs DeepSpeed."""
    assert " -r pyproject.toml --extra all\n" in SETUP.read_text()
    assert "-e '.[all]'" in (ROOT / "docs" / "kuberay" / "Dockerfile").read_text()


def test_the_image_is_made_of_the_files_that_machines_compare(
    run: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    script = bake_image.installing("ubuntu")
    assert len(script) <= bake_image.MOST_BYTES
    (unpack,) = [line for line in script.splitlines() if "tar -xJ" in line]
    subprocess.run(["bash", "-c", unpack], cwd=tmp_path, check=True)
    assert run(tmp_path / "scripts" / "node_setup.sh")
    assert run(SETUP) == []  # on a machine of the image


@pytest.mark.parametrize("installs", [True, False])
def test_a_baked_image_is_of_a_machine_that_is_gone(
    installs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setattr(bake_image, "READY", "Linux version" if installs else "not on a console")
    with mock_aws():
        ec2 = boto3.client("ec2", region_name="us-west-2")

        def stops(parsed: dict[str, Any], **_: Any) -> None:
            ec2.stop_instances(InstanceIds=[parsed["Instances"][0]["InstanceId"]])

        ec2.meta.events.register("after-call.ec2.RunInstances", stops)
        request = {**bake_image.machine(CONFIG), "ImageId": "ami-12c6146b"}
        if installs:
            image = bake_image.bake(ec2, request, "w2s-ray-1")
            assert ec2.describe_images(ImageIds=[image])["Images"][0]["Name"] == "w2s-ray-1"
        else:
            with pytest.raises(SystemExit, match="did not install"):
                bake_image.bake(ec2, request, "w2s-ray-1")
        (of_bake,) = ec2.describe_instances()["Reservations"]
        assert of_bake["Instances"][0]["State"]["Name"] == "terminated"
