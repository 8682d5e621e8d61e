"""What Ray would make of a configuration or a command, asked of its own code."""

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated import autoscaler_pb2
from ray.scripts.scripts import drain_node


def started(config: Mapping[str, Any], groups: list[list[dict[str, float]]]) -> dict[str, int]:
    """Machines of each type that start while nothing runs and each group waits to be placed whole.

    Args:
        config: an autoscaling configuration in which every type's resources are filled in.
        groups: resources of the processes of each group.
    """
    read = AutoscalingConfig(dict(config), skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=read.get_node_type_configs(),
        max_num_nodes=read.get_max_num_nodes(),
        gang_resource_requests=[
            autoscaler_pb2.GangResourceRequest(  # type: ignore[attr-defined]
                requests=[ResourceRequestUtil.make(each) for each in group]
            )
            for group in groups
        ],
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_gang_resource_requests
    counts: Counter[str] = Counter()
    for launch in reply.to_launch:
        counts[launch.instance_type] += launch.count
    return {name: n for name, n in counts.items() if name not in ("head", "headgroup")}


def read_drain(line: str) -> None:
    """Parses a ``ray drain-node …`` without running it; click.UsageError for what Ray refuses."""
    words = shlex.split(line)
    assert words[:2] == ["ray", "drain-node"]
    context = drain_node.make_context("drain-node", words[2:])
    assert context.params["node_id"] is None  # the machine that it runs on
    assert context.params["deadline_remaining_seconds"] < 120
