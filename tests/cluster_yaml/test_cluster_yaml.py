"""`cluster.yaml` without AWS: what `ray up` would refuse, and what it would not notice.

Ray validates the outline of the file and never looks inside `node_config`, where a misspelt field
costs a failed launch and a forgotten one costs money or opens a port. EC2's own model of
`RunInstances`, which ships with botocore, checks those fields offline.
"""

import copy
import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import pytest
import yaml
from ray._private.state import state
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.testing.autoscaling import read_drain, started
from w2s_ray.cluster import placement
from w2s_ray.cluster.placement import Need, fits

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster.yaml"
COMMANDS = (
    "initialization_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


# What EC2's DescribeInstanceTypes says: vCPU, MiB, GPU, number of GPUs.
MACHINES = {
    "m7i.2xlarge": (8, 32_768, None, 0),
    "g5.4xlarge": (16, 65_536, "A10G", 1),
    "g6e.48xlarge": (192, 1_572_864, "L40S", 8),
    "p5.48xlarge": (192, 2_097_152, "H100", 8),
    "p5en.48xlarge": (192, 2_097_152, "H200", 8),
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The file as `ray up` sees it: with Ray's defaults filled in."""
    written = yaml.safe_load(CLUSTER.read_text())
    prepared: dict[str, Any] = prepare_config(written)
    return prepared


@pytest.fixture(scope="module")
def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    types = config["available_node_types"]
    return {name: types[name] for name in types if name != config["head_node_type"]}


@pytest.fixture
def resolved(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The file as `ray up` leaves it on the head: with the resources of every type."""
    described = [
        {
            "InstanceType": name,
            "VCpuInfo": {"DefaultVCpus": cpus},
            "MemoryInfo": {"SizeInMiB": memory},
            **({"GpuInfo": {"Gpus": [{"Name": gpu, "Count": gpus}]}} if gpus else {}),
        }
        for name, (cpus, memory, gpu, gpus) in MACHINES.items()
    ]
    monkeypatch.setattr(node_provider, "list_ec2_instances", lambda *of: described)
    filled: dict[str, Any] = node_provider.AWSNodeProvider.fillout_available_node_types_resources(
        config
    )
    return filled


def ray_start(config: dict[str, Any], which: str) -> str:
    (command,) = [line for line in config[which] if "ray start" in line]
    assert isinstance(command, str)
    return command


def test_ray_accepts_it_and_would_refuse_a_misspelt_field(config: dict[str, Any]) -> None:
    validate_config(config)
    wrong = copy.deepcopy(config)
    wrong["available_node_types"]["head"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(wrong)


def test_ec2_would_accept_every_node_config(config: dict[str, Any]) -> None:
    model = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model("RunInstances").input_shape

    def complaints(node_config: dict[str, Any]) -> str:
        call = {"MinCount": 1, "MaxCount": 1, **node_config}  # Ray adds these two
        report = botocore.validate.ParamValidator().validate(call, shape)
        return str(report.generate_report())

    for name, node_type in config["available_node_types"].items():
        assert complaints(node_type["node_config"]) == "", name
    assert "SpotPrice" in complaints({"SpotPrice": "1.0"})


def test_nothing_runs_at_rest_but_the_head(
    config: dict[str, Any], workers: dict[str, dict[str, Any]]
) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert all(worker["min_workers"] == 0 for worker in workers.values())
    assert all(worker["max_workers"] <= config["max_workers"] for worker in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


def test_ray_up_finds_the_gpus_of_every_type_and_the_driver_sees_them(
    resolved: dict[str, Any],
    workers: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    types = resolved["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 4}  # 4 of 8, and no memory
    for name in workers:  # gpu-8x80: eight GPUs
        gpus = int(name.removeprefix("gpu-").split("x")[0])
        assert types[name]["resources"]["GPU"] == gpus, name
    bootstrap = tmp_path / "ray_bootstrap_config.yaml"
    bootstrap.write_text(yaml.safe_dump(resolved))
    monkeypatch.setattr(placement, "BOOTSTRAP", bootstrap)
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)  # as under `ray up`
    monkeypatch.setattr(placement, "_nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4}}])
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    nodes = placement.cluster_nodes()
    assert fits([Need(workers=8, cpus=1, gpus=1)], nodes)
    assert not fits([Need(workers=99, cpus=1, gpus=1)], nodes)


def test_one_process_starts_one_gpu_and_eight_together_start_one_machine_of_eight(
    resolved: dict[str, Any],
) -> None:
    process = {"CPU": 1.0, "GPU": 1.0}
    assert started(resolved, [[process]]) == {"gpu-1x24": 1}
    assert started(resolved, [[process] * 8]) == {"gpu-8x80": 1}
    assert started(resolved, [[{"CPU": 1.0}]]) == {}  # the head does it
    types = resolved["available_node_types"]
    types["gpu-1x24"]["max_workers"] = 0  # as for models that need the larger GPUs
    assert started(resolved, [[process] * 2] * 4) == {"gpu-8x80": 1}
    for name in types:
        types[name]["max_workers"] = 0 if name == "head" else 2
    assert started(resolved, [[process] * 8]) == {"gpu-8x48": 1}  # the cheapest of equals


def test_workers_are_spot_and_the_head_is_on_demand(
    config: dict[str, Any], workers: dict[str, dict[str, Any]]
) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    for worker in workers.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_a_spot_machine_that_is_taken_is_drained_once(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (watch,) = [c for c in config["worker_start_ray_commands"] if "instance-action" in c]
    read_drain(re.findall(r"(ray drain-node .*?) && break", watch)[0])
    commands = tmp_path / "bin"
    ray = tmp_path / "venv" / "bin" / "ray"
    for path, script in {
        commands / "sleep": "exec /bin/sleep 0.05",
        commands / "curl": f'echo . >> {tmp_path}/asked; test "$(wc -l < {tmp_path}/asked)" -gt 5',
        ray: f'echo "$RAY_AUTH_MODE $RAY_ADDRESS $1" >> {tmp_path}/told',
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{commands}:/usr/bin:/bin", "RAY_HEAD_IP": "h"}
    subprocess.run(["bash", "-c", watch], env=environment, check=True, timeout=60)
    deadline = time.monotonic() + 120
    while not (tmp_path / "told").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    lock = ["flock", "-w", "120", str(tmp_path / "spot.lock")]
    subprocess.run([*lock, "true"], check=True)  # free when the watch is over
    assert (tmp_path / "told").read_text() == "token h:6379 drain-node\n"


def test_the_head_has_no_gpu_and_advertises_what_it_starts_with(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    family = head["node_config"]["InstanceType"].split(".")[0]
    assert re.fullmatch(r"[cmr]\d\w*", family)
    command = ray_start(config, "head_start_ray_commands")
    assert f"--num-cpus={head['resources']['CPU']} " in command
    assert "--num-gpus=0 " in command
    assert head["resources"].get("GPU", 0) == 0


def test_every_node_can_reach_the_bucket_and_runs_one_image(config: dict[str, Any]) -> None:
    nodes = [node["node_config"] for node in config["available_node_types"].values()]
    assert all(node["IamInstanceProfile"]["Name"] for node in nodes)
    assert len({node["ImageId"] for node in nodes}) == 1


def test_disks_are_encrypted_credentials_need_a_token_and_keys_are_not_copied(
    config: dict[str, Any],
) -> None:
    for node_type in config["available_node_types"].values():
        node = node_type["node_config"]
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert ".env*" in config["rsync_exclude"]


def test_the_head_may_terminate_machines_of_this_cluster_alone(config: dict[str, Any]) -> None:
    (text,) = re.findall(
        r"cat > head.json <<END\n(.*?)\nEND", (ROOT / "docs/cluster.md").read_text(), re.DOTALL
    )
    given = [s for s in json.loads(text)["Statement"] if "Instances" in str(s["Action"])]
    starting, ending = given
    assert starting["Action"] == ["ec2:RunInstances", "ec2:Describe*"]
    assert ending["Action"] == ["ec2:CreateTags", "ec2:TerminateInstances"]
    of_cluster = {"aws:ResourceTag/ray-cluster-name": config["cluster_name"]}
    assert ending["Condition"] == {"StringEquals": of_cluster}
    tagging = [s for s in json.loads(text)["Statement"] if s["Action"] == "ec2:CreateTags"]
    assert [s["Condition"] for s in tagging] == [
        {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    ], "a tag that lets it end other machines is given to new ones alone"


def test_the_dashboard_listens_on_loopback_only(config: dict[str, Any]) -> None:
    arguments = shlex.split(ray_start(config, "head_start_ray_commands"))
    assert [a for a in arguments if a.startswith("--dashboard-host")] == [
        "--dashboard-host=127.0.0.1"
    ]
    assert not [line for name in COMMANDS for line in config[name] if "0.0.0.0" in line]


def test_every_process_authenticates_by_a_token_that_is_not_in_the_file(
    config: dict[str, Any],
) -> None:
    home = f"/home/{config['auth']['ssh_user']}"
    assert config["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    for which in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert re.search(r"RAY_AUTH_MODE=token (\S+=\S+ )*\S*ray start", ray_start(config, which))
    profile = [line for line in config["head_setup_commands"] if "~/.bashrc" in line]
    assert any("export RAY_AUTH_MODE=token" in line for line in profile)  # `ray attach`, `ray exec`
    assert "RAY_AUTH_TOKEN" not in CLUSTER.read_text()


def test_every_node_installs_this_code(config: dict[str, Any]) -> None:
    """The environment under it is that of scripts/node_setup.sh: test_node_setup.py."""
    home = f"/home/{config['auth']['ssh_user']}"
    assert config["file_mounts"][f"{home}/w2s_ray"] == "."
    for which in ("head_setup_commands", "worker_setup_commands"):
        setup, install = (line for line in config[which] if "w2s_ray" in line)
        assert setup == "bash ~/w2s_ray/scripts/node_setup.sh"
        assert install.endswith(" --no-deps -e ~/w2s_ray")
    assert {".venv", "/store"} <= set(config["rsync_exclude"])
    cuda = [line for line in config["worker_setup_commands"] if "/usr/local/cuda" in line]
    assert any("torch.version.cuda" in line for line in cuda)  # DeepSpeed refuses another


def test_every_machine_terminates_itself_after_hours_that_the_file_says(
    config: dict[str, Any],
) -> None:
    hours = {}
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        assert node["InstanceInitiatedShutdownBehavior"] == "terminate"
        first, second, *_ = node["UserData"].split("\n")
        assert first == "#!/bin/bash"  # else cloud-init does not run it
        hours[name] = int(second.removeprefix("shutdown -h +")) / 60
    said = re.search(r"the head after (\d+) hours,\n# workers after (\d+)", CLUSTER.read_text())
    assert said is not None
    assert hours.pop("head") == int(said[1])
    assert set(hours.values()) == {int(said[2])}


def test_a_worker_that_lost_its_head_ends_after_twenty_minutes(
    workers: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Ray is installed for five minutes, runs for three, is started again by `ray up`, and is gone.
    alive = "0 0 0 0 0 1 1 1 0 1" + " 0" * 30
    for name, script in {
        "sleep": "exec /bin/sleep 0.01",
        "pgrep": f"""echo . >> {tmp_path}/asked; n=$(wc -l < {tmp_path}/asked)
            set -- {alive}; test "${{!n}}" = 1""",
        "shutdown": f'echo "$@" >> {tmp_path}/told',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (script,) = {worker["node_config"]["UserData"] for worker in workers.values()}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", script], env=environment, check=True, timeout=60)
    deadline = time.monotonic() + 120
    while "now" not in (tmp_path / "told").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "told").read_text() == "-h +1440\n-h now\n"
    assert len((tmp_path / "asked").read_text().split()) == 10 + 20


def test_what_is_large_and_lost_with_the_machine_lies_on_its_own_disks(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (link,) = [line for line in config["worker_setup_commands"] if "mountpoint" in line]
    for _ in range(2):
        subprocess.run(
            ["bash", "-c", link.replace("/opt/dlami/nvme", str(tmp_path / "none"))],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            check=True,
        )
    assert (tmp_path / "scratch").is_dir()
    assert "XDG_CACHE_HOME=$HOME/scratch " in ray_start(config, "worker_start_ray_commands")


def test_every_command_is_valid_bash(config: dict[str, Any]) -> None:
    for name in COMMANDS:
        for command in config[name]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


def test_no_setup_command_piles_up_when_ray_up_is_run_again(
    config: dict[str, Any], tmp_path: Path
) -> None:
    lines = [line for line in config["head_setup_commands"] if ">> ~/.bashrc" in line]
    assert lines
    for line in lines * 2:
        subprocess.run(["bash", "-c", line], env={"HOME": str(tmp_path)}, check=True)
    written = (tmp_path / ".bashrc").read_text().splitlines()
    assert len(written) == len(lines)
