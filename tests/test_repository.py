"""What stands around the package agrees with it: metadata, dependencies, hooks, the workflow."""

import ast
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import w2s_ray
from w2s_ray.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
WITH_ANOTHER = {"pydantic_core", "tensorboardX"}  # come with pydantic and ray[tune]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = {name: EXTRAS[name] for name in EXTRAS if name not in ("all", "test")}
BY_REQUEST = {"sinks"}  # other programs, with a hundred dependencies
NOT_IMPORTED = {"alembic", "boto3", "mlflow_skinny", "sqlalchemy"}  # Ray's launcher and MLflow do
IMPORTED_WHERE_INSTALLED = {"mlflow", "trackio"}  # a part of it is in [sinks]; in no extra


def normalised(requirement: str) -> str:
    """The name in a requirement or pin, in the form that registries compare."""
    return re.split(r"[\[<>=;~! ]", requirement)[0].lower().replace("_", "-")


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}
    assert required <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == PROJECT["version"] == w2s_ray.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "w2s_ray" / "py.typed").read_bytes() == b""


def imported() -> set[str]:
    """Top-level modules that the package imports, at any depth of a function."""
    names: set[str] = set()
    for path in (ROOT / "w2s_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_every_dependency_is_imported_and_every_import_is_a_dependency() -> None:
    declared = {
        IMPORTED_AS.get(name, name.replace("-", "_"))
        for name in map(normalised, [*PROJECT["dependencies"], *chain(*OPTIONAL.values())])
    }
    used = imported() - set(sys.stdlib_module_names) - {"w2s_ray"} - WITH_ANOTHER
    assert declared - NOT_IMPORTED == used - NOT_IMPORTED - IMPORTED_WHERE_INSTALLED


def test_every_extra_is_named_where_its_package_is_asked_for() -> None:
    assert {(extra, module) for module, extra in EXTRA_OF.items()} == {
        (extra, normalised(requirement))
        for extra, requirements in OPTIONAL.items()
        if extra not in BY_REQUEST
        for requirement in requirements
    }
    assert EXTRAS["all"] == [f"w2s-ray[{','.join(sorted(OPTIONAL.keys() - BY_REQUEST))}]"]


def test_the_pins_keep_the_lower_bounds() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    tested = {normalised(name): version for name, version in pins.items()}
    for text in [*PROJECT["dependencies"], *chain(*OPTIONAL.values())]:
        requirement = Requirement(text)
        assert requirement.specifier, text
        assert tested[normalised(requirement.name)] in requirement.specifier, text


def test_constraints_pin_every_dependency_once() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = list(map(normalised, pins))
    assert len(names) == len(set(names))
    extras = {name: set(named) for name, named in EXTRAS.items() if name != "all"}
    wanted = set(PROJECT["dependencies"]).union(*extras.values()) - {"w2s-ray[all]"}
    assert set(map(normalised, wanted)) <= set(names)


def test_hooks_run_the_projects_own_environment() -> None:
    """Never a version that a hook repository pins beside constraints.txt."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert program.startswith(".venv/bin/")
        assert program.rpartition("/")[2] in PROJECT["optional-dependencies"]["test"]


def test_the_workflow_runs_a_target_of_the_makefile_on_the_oldest_python() -> None:
    path = ROOT / ".github" / "workflows" / "tests.yml"
    steps = yaml.safe_load(path.read_text())["jobs"]["tests"]["steps"]
    (python,) = (step["with"]["python-version"] for step in steps if "python-version" in str(step))
    assert f">={python}" == PROJECT["requires-python"]
    (command,) = (step["run"] for step in steps if "run" in step)
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_files_and_functions_are_short_or_say_why_they_are_long() -> None:
    """A file has 400 lines at most; a function of more than 60 has its reason in its docstring."""
    found = []
    for room in ("w2s_ray", "benchmarks", "scripts", "tests"):
        for path in sorted((ROOT / room).rglob("*.py")):
            text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
            if len(text.splitlines()) > 400:
                found.append(f"{name}: {len(text.splitlines())} lines")
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.FunctionDef) or node.end_lineno - node.lineno < 60:
                    continue
                if not re.search(r"\b[Ll]ong(er)?\b", ast.get_docstring(node) or ""):
                    found.append(f"{name}:{node.lineno}: {node.name} is long")
    assert not found, "\n".join(found)


def test_issue_forms_are_such_as_github_shows() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    forms = sorted(path for path in folder.glob("*.yml") if path.name != "config.yml")
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form.keys() == {"name", "description", "labels", "body"}
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids))
        for field in form["body"]:
            assert field["type"] in ("textarea", "input") and field["attributes"]["label"]
