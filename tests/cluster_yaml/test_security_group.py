"""SSH into a cluster of `cluster.yaml`, as Ray's own code sets it up in an EC2 that moto plays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as of_ray
from ray.autoscaler._private.aws import utils
from ray.autoscaler._private.cli_logger import SilentClickException

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()
PLACEHOLDER = "sg-YOUR-GROUP"


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    caches = (utils.resource_cache, utils.client_cache, of_ray._get_subnets_or_die)
    with mock_aws():
        for cache in caches:
            cache.cache_clear()
        yield boto3.client("ec2", region_name=yaml.safe_load(TEXT)["provider"]["region"])
    for cache in caches:
        cache.cache_clear()


def configured(text: str) -> dict[str, Any]:
    """The file after what `ray up` does about networks."""
    subnets = of_ray._configure_subnet(yaml.safe_load(text))
    config: dict[str, Any] = of_ray._configure_security_group(subnets)
    return config


def ssh_ranges(ec2: Any, group: str) -> list[str]:
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return [
        range_["CidrIp"] for rule in found["IpPermissions"] for range_ in rule.get("IpRanges", [])
    ]


def test_with_your_group_ssh_is_open_to_your_address_alone(ec2: Any) -> None:
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="w2s-ray", Description="d", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    rule = {**ssh, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    config = configured(TEXT.replace(PLACEHOLDER, group))
    for name, node_type in config["available_node_types"].items():
        assert node_type["node_config"]["SecurityGroupIds"] == [group], name
    assert ssh_ranges(ec2, group) == ["203.0.113.7/32"]


def test_without_one_ray_up_starts_nothing(ec2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((AssertionError, SilentClickException)):
        configured(TEXT)
    assert "Failed to detect a security group" in capsys.readouterr().err
    # What would have been made: this is why the file asks for a group.
    lines = [line for line in TEXT.splitlines() if "SecurityGroupIds" not in line]
    config = configured("\n".join(lines))
    (group,) = config["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    assert ssh_ranges(ec2, group) == ["0.0.0.0/0"]
