"""The Grafana dashboard asks for the metrics that the code exports, and for all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.cluster.gauges import OF_STEPS, OF_STUDIES, PREFIX, WITH_STATES
from w2s_ray.running.run_state import CELL_STATES, STEP_STATES

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "w2s_ray.json"
OWN = {f"ray_{PREFIX}{name}" for name in (*OF_STEPS, *OF_STUDIES)}
OF_RAY = {"ray_node_cpu_utilization", "ray_node_gpus_utilization", "ray_node_mem_used"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_is_shown_and_no_other_is_asked_for(dashboard: dict[str, Any]) -> None:
    asked = set(re.findall(r"\bray_\w+", " ".join(queries(dashboard))))
    assert asked == OWN | OF_RAY


def test_states_in_queries_are_those_of_the_code(dashboard: dict[str, Any]) -> None:
    named = re.findall(r'state=~?"([^"]+)"', " ".join(queries(dashboard)))
    assert {state for group in named for state in group.split("|")} == set(CELL_STATES)
    assert set(CELL_STATES) < set(STEP_STATES)
    assert set(WITH_STATES) <= set(OF_STUDIES)


def test_it_can_be_imported_into_any_grafana(dashboard: dict[str, Any]) -> None:
    """The source of data is chosen on the page, ids are unique, no panel covers another."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["study"]["query"]["query"] == "label_values(ray_w2s_ray_cells, study)"
    panels = dashboard["panels"]
    targets = [target for panel in panels for target in panel["targets"]]
    for part in (*panels, *targets):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) == 23  # Grafana's width
    assert "id" not in dashboard  # else an import would replace some other dashboard
