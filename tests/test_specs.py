"""The shipped specs can be had without the repository."""

from pathlib import Path

import pytest

from w2s_ray.specs import main

SPECS = Path(__file__).resolve().parents[1] / "study_specs"


def test_the_shipped_specs_are_copied_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "mine")]) == 0
    shipped = {path.name: path.read_bytes() for path in SPECS.iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == shipped
    (tmp_path / "mine" / "quickstart.yaml").write_text("mine")
    assert main([str(tmp_path / "mine")]) == 2
    assert "quickstart.yaml" in capsys.readouterr().err
    assert (tmp_path / "mine" / "quickstart.yaml").read_text() == "mine"
