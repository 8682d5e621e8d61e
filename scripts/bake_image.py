"""Makes an EC2 image with the environment of cluster.yaml, so that workers need not install it.

    python scripts/bake_image.py              # prints ami-…, the ImageId for cluster.yaml

Starts one on-demand machine of the head's type from the image that ``cluster.yaml`` names, lets it
run ``scripts/node_setup.sh`` (for 20 minutes at most; nobody can log in), and makes an image of its
disk, without code of yours and without a secret. The machine is terminated in any case; if this
process dies, it stops after an hour, and its disk stays until you terminate it. After a change of
``pyproject.toml`` or ``constraints.txt`` machines install again until an image is made anew. An
image costs the storage of its snapshot until you deregister it and delete the snapshot.
"""

import argparse
import base64
import io
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import boto3
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "constraints.txt", "scripts/node_setup.sh")
READY = "w2s_ray: environment installed"
MOST_BYTES = 16_384  # of the script that EC2 hands to a machine
POLLS, SECONDS = 80, 15  # 20 minutes to install


def main() -> int:
    parser = argparse.ArgumentParser(description="Make an EC2 image with the environment.")
    parser.add_argument("--cluster", type=Path, default=ROOT / "cluster.yaml")
    options = parser.parse_args()
    config = yaml.safe_load(options.cluster.read_text())
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    print(bake(ec2, machine(config), f"{config['cluster_name']}-{int(time.time())}"))
    return 0


def machine(config: dict[str, Any]) -> dict[str, Any]:
    """The call of ``RunInstances`` for the machine that installs."""
    node = config["available_node_types"][config["head_node_type"]]["node_config"]
    return {
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": node["InstanceType"],
        "ImageId": node["ImageId"],
        "BlockDeviceMappings": node["BlockDeviceMappings"],
        "InstanceInitiatedShutdownBehavior": "stop",  # a stopped disk is a whole one
        "UserData": installing(config["auth"]["ssh_user"]),
    }


def installing(user: str) -> str:
    """The script that installs as ``user``, says so on the console, and stops the machine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name in FILES:
            archive.add(ROOT / name, name)
    script = f"""#!/bin/bash
exec &> /dev/console
shutdown -h +60
cd "$(mktemp -d)" && chmod 755 .
base64 -d <<< {base64.b64encode(packed.getvalue()).decode()} | tar -xJ
runuser -l {user} -c "bash $PWD/scripts/node_setup.sh" && echo '{READY}'
shutdown -h now
"""
    assert len(script) <= MOST_BYTES, f"{len(script):,} bytes"
    return script


def bake(ec2: Any, request: dict[str, Any], name: str) -> str:
    """Installs on one machine and returns the image of its disk; SystemExit where that fails."""
    (started,) = ec2.run_instances(**request)["Instances"]
    ids = [started["InstanceId"]]
    try:
        print(f"{ids[0]} installs …", file=sys.stderr, flush=True)
        patience = {"Delay": SECONDS, "MaxAttempts": POLLS}
        ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig=patience)
        console = ec2.get_console_output(InstanceId=ids[0]).get("Output", "")
        if READY not in console:
            raise SystemExit(
                f"{ids[0]} did not install; the end of its console:\n{console[-2000:]}"
            )
        image: str = ec2.create_image(InstanceId=ids[0], Name=name)["ImageId"]
        print(f"{image} is being made …", file=sys.stderr, flush=True)
        ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=patience)
        return image
    finally:
        ec2.terminate_instances(InstanceIds=ids)


if __name__ == "__main__":
    sys.exit(main())
