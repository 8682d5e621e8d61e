"""What Ray's autoscaler would start for a configuration, asked of its own scheduler."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest


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
            GangResourceRequest(requests=[ResourceRequestUtil.make(each) for each in group])
            for group in groups
        ],
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_gang_resource_requests
    counts: Counter[str] = Counter()
    for launch in reply.to_launch:
        counts[launch.instance_type] += launch.count
    return {name: n for name, n in counts.items() if name not in ("head", "headgroup")}
