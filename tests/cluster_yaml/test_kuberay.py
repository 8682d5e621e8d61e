"""`docs/kuberay/` without Kubernetes: what the API server would prune, and what Ray makes of it.

The manifest is held to a trimmed schema of its kind, then read by the autoscaler that Ray runs in
the head pod, which derives from it what `ray up` is told by cluster.yaml.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.state import state
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from tests.testing.autoscaling import read_drain, started
from w2s_ray.cluster import placement
from w2s_ray.cluster.placement import Need, Node, fits
from w2s_ray.driver.options import parser
from w2s_ray.spec.loading import load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "kuberay"
HOME = "/home/ubuntu"
SCHEMA = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    objects = list(yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text()))
    return {each["kind"]: each for each in objects}


@pytest.fixture(scope="module")
def job(manifest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["RayJob"]["spec"]
    return spec


@pytest.fixture(scope="module")
def cluster(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["rayClusterSpec"]
    return spec


@pytest.fixture(scope="module")
def derived(cluster: dict[str, Any]) -> dict[str, Any]:
    """The configuration of Ray's autoscaler in the head pod."""
    resource = {"metadata": {"name": "w2s", "namespace": "default"}, "spec": cluster}
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(resource)
    return config


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def test_no_field_is_unknown_to_kuberay(manifest: dict[str, dict[str, Any]]) -> None:
    assert sorted(manifest) == ["ConfigMap", "RayJob", "ServiceAccount"]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(manifest["RayJob"], SCHEMA)
    wrong = json.loads(json.dumps(manifest["RayJob"]))
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(wrong, SCHEMA)


def test_the_entrypoint_is_a_study_that_loads_with_a_store_all_pods_can_see(
    job: dict[str, Any],
) -> None:
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", "w2s_ray.study"]
    assert job["entrypoint"] == shlex.join(words)  # nothing for a shell to interpret
    options = parser().parse_args(words[3:])
    assert options.store.startswith("s3://") and not options.local
    assert options.spec.is_absolute()  # the folder a job starts in is not ours to choose
    load(ROOT / options.spec.relative_to(f"{HOME}/w2s_ray"))


def test_a_lost_head_is_tried_again_for_a_bounded_time_and_a_finished_study_leaves_nothing(
    job: dict[str, Any],
) -> None:
    assert 0 < job["backoffLimit"] <= 3
    assert "--no-retry" in job["entrypoint"]  # no attempt repeats what failed by itself
    assert 0 < job["activeDeadlineSeconds"] <= 48 * 3600
    assert job["shutdownAfterJobFinishes"] is True
    assert 0 < job["ttlSecondsAfterFinished"] <= 3600


def test_what_a_study_cannot_lose_is_on_demand_and_stays(
    job: dict[str, Any], cluster: dict[str, Any]
) -> None:
    """The head, and the pod that submits: when it is lost too often, the attempt is over."""
    for template in (job["submitterPodTemplate"], cluster["headGroupSpec"]["template"]):
        assert template["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
        assert template["spec"]["restartPolicy"] == "Never"
        assert template["metadata"]["annotations"] == {"karpenter.sh/do-not-disrupt": "true"}
    submitter = job["submitterPodTemplate"]["spec"]
    assert "command" not in container(submitter)  # KubeRay's own, which attaches to a running job
    assert container(submitter)["image"] == container(pods(cluster)[0])["image"]


def test_the_role_is_one_that_the_page_creates_for_pods(
    manifest: dict[str, dict[str, Any]],
) -> None:
    """An EC2 instance profile's role trusts machines, not service accounts."""
    (arn,) = manifest["ServiceAccount"]["metadata"]["annotations"].values()
    page = (ROOT / "docs" / "cluster.md").read_text()
    created = re.findall(r"eksctl create iamserviceaccount .*?--role-name (\S+)", page, re.DOTALL)
    assert [arn.rpartition("/")[2]] == created


def test_nothing_waits_at_rest_but_the_head_which_has_no_gpu(derived: dict[str, Any]) -> None:
    types = dict(derived["available_node_types"])
    assert types.pop("headgroup")["resources"].items() >= {"CPU": 4, "GPU": 0}.items()
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())
    assert sorted(kind["resources"]["GPU"] for kind in types.values()) == [1, 8]
    assert 5 <= derived["idle_timeout_minutes"] <= 15


def test_the_autoscaler_starts_what_the_steps_wait_for(derived: dict[str, Any]) -> None:
    process = {"CPU": 1.0, "GPU": 1.0}
    assert started(derived, [[process]]) == {"gpu-1x24": 1}
    assert started(derived, [[process] * 8]) == {"gpu-8x80": 1}
    assert started(derived, [[{"CPU": 1.0}]]) == {}


def test_the_driver_sees_every_group_that_can_be_started(
    manifest: dict[str, dict[str, Any]],
    cluster: dict[str, Any],
    derived: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = manifest["ConfigMap"]["data"]
    head = pods(cluster)[0]
    (volume,) = [v for v in head["volumes"] if "configMap" in v]
    (mount,) = [m for m in container(head)["volumeMounts"] if m["name"] == volume["name"]]
    assert volume["configMap"]["name"] == manifest["ConfigMap"]["metadata"]["name"]
    assert mount["mountPath"] == str(placement.BOOTSTRAP).replace("~", HOME)
    bootstrap = tmp_path / "told.yaml"
    bootstrap.write_text(output[mount["subPath"]])
    monkeypatch.setattr(placement, "BOOTSTRAP", bootstrap)
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # as Ray sets it for the process of a job
    groups = [
        (kind["resources"]["CPU"], kind["resources"]["GPU"], kind["max_workers"])
        for name, kind in derived["available_node_types"].items()
        if name != "headgroup"
    ]
    types = placement._node_types()
    assert [(r["CPU"], r["GPU"], count) for r, count in types] == groups
    nodes = [Node(r["CPU"], r["GPU"]) for r, count in types for _ in range(count)]
    assert fits([Need(workers=8, cpus=1, gpus=1)], nodes)


def test_a_pod_that_has_to_go_is_drained_first(cluster: dict[str, Any]) -> None:
    for pod in pods(cluster)[1:]:
        command = container(pod)["lifecycle"]["preStop"]["exec"]["command"]
        line, pause = command[2].split(" && ")
        read_drain(line)
        assert int(pause.removeprefix("sleep ")) < pod["terminationGracePeriodSeconds"]


def test_gpus_are_requested_as_limited_and_land_on_spot_nodes_of_one_kind(
    cluster: dict[str, Any],
) -> None:
    head, *workers = pods(cluster)
    assert "nvidia.com/gpu" not in json.dumps(head)
    assert head["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    kinds = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    for group, pod in zip(cluster["workerGroupSpecs"], workers, strict=True):
        resources = container(pod)["resources"]
        for name, limit in resources["limits"].items():
            assert resources["requests"][name] == limit
        assert int(resources["limits"]["nvidia.com/gpu"]) >= 1
        assert pod["nodeSelector"] == {
            "karpenter.sh/capacity-type": "spot",
            "node.kubernetes.io/instance-type": kinds[group["groupName"]]["node_config"][
                "InstanceType"
            ],
        }
        assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_the_dashboard_stays_inside_and_asks_for_a_token(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and "enableIngress" not in head


def test_no_secret_is_in_the_manifest(cluster: dict[str, Any]) -> None:
    text = (FOLDER / "rayjob.yaml").read_text()
    assert not re.search(r"AKIA|hf_[A-Za-z0-9]{8}|RAY_AUTH_TOKEN", text)
    for pod in pods(cluster):
        for variable in container(pod)["env"]:
            if re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]):
                assert "value" not in variable and "secretKeyRef" in variable["valueFrom"]


def test_all_pods_run_one_image_with_the_pinned_ray_and_may_use_the_bucket(
    manifest: dict[str, dict[str, Any]], cluster: dict[str, Any]
) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    assert len({container(pod)["image"] for pod in pods(cluster)}) == 1
    account = manifest["ServiceAccount"]["metadata"]
    assert {pod["serviceAccountName"] for pod in pods(cluster)} == {account["name"]}
    assert any("role-arn" in name for name in account["annotations"])


def test_every_mount_has_its_volume_and_the_caches_are_on_it(cluster: dict[str, Any]) -> None:
    for pod in pods(cluster):
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {m["name"]: m["mountPath"] for m in container(pod)["volumeMounts"]}
        assert set(mounts) == volumes
        caches = {v["value"] for v in container(pod)["env"] if v["name"] == "XDG_CACHE_HOME"}
        assert caches == {mounts["scratch"]}


def test_the_image_has_the_checkout_the_pinned_versions_and_what_deepspeed_compiles_with(
    cluster: dict[str, Any],
) -> None:
    text = (FOLDER / "Dockerfile").read_text()
    code = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    instructions = [line.split(maxsplit=1) for line in code.splitlines() if line.strip()]
    arguments = " ".join(body for name, body in instructions if name == "RUN")
    for install in re.findall(r"pip install[^&]*", arguments):
        assert "-c constraints.txt" in install
    assert {"g++", "git", "libaio-dev", "ninja-build", "wget"} <= set(arguments.split())
    assert f"{HOME}/w2s_ray" in [body for name, body in instructions if name == "WORKDIR"]
    last_copy = [body for name, body in instructions if name == "COPY"][-1]
    assert last_copy.split()[-2:] == [".", "."]
    assert "devel" in next(body for name, body in instructions if name == "FROM")
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".venv*", "store"} <= set(ignored) and ".git" not in ignored
    user = {(pod["securityContext"]["runAsUser"]) for pod in pods(cluster)}
    assert user == {1000}  # `ubuntu` of the image
