"""What can be seen of a run on Ray: the line that tells how to log in, the logs, the names."""

import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.cluster.ray_internals import logs_folder
from w2s_ray.cluster.session import Session
from w2s_ray.study import main

pytestmark = pytest.mark.ray


def asked(session: Session, path: str) -> Any:
    """What the dashboard answers to somebody who has logged in."""
    token = Path("~/.ray/auth_token").expanduser().read_text()
    request = urllib.request.Request(f"{session.dashboard_url}{path}")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_line_of_the_dashboard_says_how_to_log_in(ray_session: Session) -> None:
    line = ray_session.dashboard_line
    assert line.startswith(f"Ray dashboard: {ray_session.dashboard_url}; it asks for a token")
    found = re.search(r"`(.*) get-auth-token`", line)
    assert found
    assert os.access(found[1], os.X_OK) or found[1] == "ray"


def test_names_and_logs_say_which_steps_ran(
    ray_session: Session, write_spec: Any, tmp_path: Path
) -> None:
    spec = write_spec(
        study="watched",
        grid__loss=["forward_kl"],
        grid__noise_ratio=[0.0],
        execution={"max_concurrent_steps": 1},  # one process, which imports torch once
    )
    assert main([str(spec), "--store", str(tmp_path / "store")]) == 0
    folder = logs_folder()
    assert folder is not None
    lines = (folder / "w2s_ray-watched.log").read_text().splitlines()
    (student,) = (path.name for path in (tmp_path / "store" / "student").iterdir())
    for event in ("started", "done"):
        assert any(line.endswith(f" {event} student {student}") for line in lines)
    assert "1 of 1 cells done" in lines[-1]
    actors = asked(ray_session, "/logical/actors")["data"]["actors"].values()
    pids = {actor["pid"] for actor in actors if actor["reprName"] == "w2s_ray watched"}
    assert pids
    logs = [path for pid in pids for path in folder.glob(f"worker-*-{pid}.err")]
    text = "".join(path.read_text() for path in logs)
    assert f"started student {student}" in text
    assert re.search(rf"done student {student} after \d", text)
