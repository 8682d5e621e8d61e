"""Machines and prices come from the spec, the environment or the cluster's file, in this order."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from w2s_ray.capacity.gpu_types import Gpu, gpu_type, gpu_types, machines
from w2s_ray.capacity.machines import cluster_machine, planned_gpu
from w2s_ray.errors import InputError
from w2s_ray.spec.execution import Execution

ROOT = Path(__file__).resolve().parents[2]


def planned(**execution: Any) -> Gpu:
    gpu = planned_gpu(Execution.model_validate({"gpu_type": "A10G"} | execution))
    assert gpu is not None
    return gpu


def refused(**execution: Any) -> InputError:
    with pytest.raises(InputError) as error:
        planned(**execution)
    assert "\n" not in str(error.value)
    return error.value


def test_without_a_gpu_type_there_is_no_machine() -> None:
    assert planned_gpu(Execution()) is None
    with pytest.raises(ValueError, match="a gpu_type beside it"):
        Execution.model_validate({"machine": "g5.xlarge"})


def test_the_usual_machines_are_those_of_cluster_yaml() -> None:
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    names = {kind["node_config"]["InstanceType"] for kind in content.values()}
    shipped = names & set(machines())
    assert len(shipped) >= 4
    assert shipped <= {gpu.machine for gpu in gpu_types().values()}


def test_a_name_is_enough_and_what_is_given_replaces_what_is_listed() -> None:
    gpu = planned(machine="g5.48xlarge")
    assert (gpu.machine, gpu.gpus_per_machine, gpu.host_memory) == ("g5.48xlarge", 8, 768 << 30)
    fast = planned(machine={"name": "g5.48xlarge", "network_gbit_s": 400.0, "usd_per_hour": 16.0})
    assert fast.network == pytest.approx(4 * gpu.network)
    assert fast.usd_per_hour == pytest.approx(2.0)  # of one GPU
    assert planned(machine={"gpus": 2}).gpus_per_machine == 2
    assert planned(machine=None) == planned()


def test_a_machine_that_is_not_listed_is_described() -> None:
    described = {"name": "ours", "gpus": 4, "host_memory_gib": 500.0, "network_gbit_s": 10.0}
    gpu = planned(machine=described)
    assert (gpu.machine, gpu.gpus_per_machine, gpu.host_memory) == ("ours", 4, 500 << 30)
    error = refused(machine="g5.48xlage")
    assert error.place == ("execution", "machine")
    assert str(error).endswith("did you mean 'g5.48xlarge'?")


def test_a_machine_has_the_gpus_that_are_planned_for() -> None:
    error = refused(machine="p5.48xlarge")
    assert "has GPUs of type H100, expected a machine with A10G: g5.xlarge" in str(error)


def test_prices_come_from_the_environment_unless_the_spec_gives_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert planned().usd_per_hour is None
    monkeypatch.setenv("W2S_USD_PER_HOUR", "g5.4xlarge=1.6, g5.48xlarge=16")
    assert planned().usd_per_hour == 1.6
    assert planned(machine="g5.48xlarge").usd_per_hour == 2.0
    assert planned(machine={"usd_per_hour": 1.0}).usd_per_hour == 1.0
    for wrong in ("g5.4xlarge", "g5.4xlarge=much", "g5.4xlarge=-1", "g5.4xlarge=inf"):
        monkeypatch.setenv("W2S_USD_PER_HOUR", wrong)
        assert f"given '{wrong}', expected MACHINE=USD" in str(refused())


def test_the_clusters_file_says_which_machines_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cluster_machine("A10G") is None
    monkeypatch.setenv("W2S_CLUSTER", str(ROOT / "cluster.yaml"))
    for gpu in ("A10G", "H100"):
        kind = cluster_machine(gpu)
        assert kind is not None and kind.name == gpu_type(gpu).machine and kind.most >= 1
    assert cluster_machine("B200") is None
    path = tmp_path / "mine.yaml"
    types = {
        name: {"node_config": {"InstanceType": machine}, "max_workers": most}
        for name, machine, most in (("a", "g5.xlarge", 4), ("b", "g5.12xlarge", 2), ("c", "x", 1))
    }
    types["off"] = {"node_config": {"InstanceType": "g5.48xlarge"}, "max_workers": 0}
    path.write_text(yaml.safe_dump({"available_node_types": types}))
    monkeypatch.setenv("W2S_CLUSTER", str(path))
    assert planned().machine == "g5.12xlarge" and planned().gpus_per_machine == 4
    assert planned(machine="g5.xlarge").machine == "g5.xlarge"
    for wrong in (
        "[]",
        "available_node_types: [1]",
        "available_node_types: {a: null}",
        "{",
        "\x00",
    ):
        path.write_text(wrong)
        assert "expected a cluster file of Ray" in str(refused())
    monkeypatch.setenv("W2S_CLUSTER", str(tmp_path / "absent.yaml"))
    assert "absent.yaml" in str(refused())
