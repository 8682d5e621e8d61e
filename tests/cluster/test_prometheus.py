"""A real Prometheus scrapes a real study: every query of the dashboard has an answer, while steps
run; none is left of a step that has ended."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from w2s_ray.cluster.gauges import OF_STEPS, OF_STUDIES, StudyGauges
from w2s_ray.cluster.tune_run import run
from w2s_ray.plan.configs import Config
from w2s_ray.plan.graph import Cell
from w2s_ray.plan.step import Kind, Step
from w2s_ray.running.run_state import RunState
from w2s_ray.store.artifacts import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "w2s_ray.json"
STUDY = "scraped"


class Prometheus:
    """A server of its own on a free port, that scrapes the connected Ray each second."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        targets = [
            f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
            for node in ray.nodes()  # type: ignore[no-untyped-call]
        ]
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that answer now; none while the server starts."""
        text = urllib.parse.urlencode({"query": query})
        try:
            url = f"http://127.0.0.1:{self.port}/api/v1/query?{text}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                series: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return series
        except urllib.error.HTTPError:
            raise
        except OSError:
            return []


@pytest.fixture
def prometheus(ray_session: object, tmp_path: Path) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus here (Debian: apt-get install prometheus)")
    server = Prometheus(tmp_path)
    yield server
    server.process.terminate()
    server.process.wait(30)


def execute(step: Step, store: Store, context: Any) -> Mapping[str, Any]:
    """A step that reports until the file named by its slug is there."""
    update = 0
    while not Path(step.slug).exists():
        update = min(9, update + 1)
        context.progress({"step": update, "steps": 10, "loss": 1.0, "tokens_per_second": 5.0})
        time.sleep(0.2)
    return {}


def until(true: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_every_query_is_answered_and_no_series_is_stale(
    prometheus: Prometheus, tmp_path: Path
) -> None:
    queries = [
        target["expr"].replace("$study", STUDY)
        for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
    ]
    own = [f"ray_w2s_ray_{name}" for name in OF_STEPS]
    end, kind = tmp_path / "end", Kind("student", 1, "")
    todo = {
        "a": Step(kind, "a", str(end), Config(), {}),
        "b": Step(kind, "b", str(end), Config(), {"model": "a"}),
    }
    keys = [{"student": key, "student_evaluate": key} for key in todo]
    state = RunState(todo, 3, {}, [Cell({}, of_cell) for of_cell in keys])
    answered: dict[str, int] = {}

    def watch() -> None:
        try:
            until(
                lambda: all(prometheus.ask(query) for query in queries),
                "a query without an answer",
            )
        finally:
            answered.update((query, len(prometheus.ask(query))) for query in [*queries, *own])
            end.touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with StudyGauges(STUDY, state.counts):
        run(todo, str(tmp_path), study=STUDY, on_event=state, execute=execute)
        watcher.join()
        assert all(answered.values()), answered
        assert {answered[metric] for metric in own} == {1}  # of the step that ran, `a`
        until(lambda: not any(prometheus.ask(metric) for metric in own), "a stale series")
        states = {
            series["metric"]["state"]: float(series["value"][1])
            for series in prometheus.ask(f'ray_w2s_ray_steps{{study="{STUDY}"}}')
        }
        assert states == {"done": 5.0, "failed": 0.0, "blocked": 0.0, "running": 0.0, "waiting": 0}
    metrics = [f"ray_w2s_ray_{name}" for name in OF_STUDIES]
    until(lambda: not any(prometheus.ask(metric) for metric in metrics), "a stale series")
