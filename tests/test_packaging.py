"""What is pinned, what is installed, and what a wheel holds."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
}


def requirements() -> list[Requirement]:
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    return [Requirement(text) for text in declared]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_inside_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_the_pins_name_public_versions_so_that_any_build_of_torch_matches():
    assert [pin for pin in PINS.values() if Version(pin).local] == []


def test_what_the_tests_run_with_is_what_is_pinned():
    differing = {}
    for name, pin in PINS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = Version(importlib.metadata.version(name)).public
            differing |= {name: found} if found != pin else {}
    assert differing == {}, "install with -c constraints.txt, or pin what is installed"


def test_everything_that_an_installation_brings_is_pinned():
    missing, seen, todo = set(), set(), requirements()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, *sorted(requirement.extras))
        marker = requirement.marker
        if key in seen or (marker and not any(marker.evaluate({"extra": extra}) for extra in ("", "dev", "nodejs"))):
            continue
        seen.add(key)
        if name not in PINS:
            missing.add(name)
        try:
            below = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, such as the CUDA libraries of torch
        for text in below:
            further = Requirement(text)
            extras = ("", *requirement.extras)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(further)
    assert missing == set()


def test_conda_brings_python_and_pip_the_same_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", f"torch=={PINS['torch']}", "-e .[dev]"]
    (python,) = [entry.split("=")[1] for entry in conda if isinstance(entry, str) and entry.startswith("python=")]
    assert python in PROJECT["project"]["requires-python"]


def test_every_package_is_listed():
    found = find_packages(str(ROOT), include=["vlm", "vlm.*", "data_prep", "data_prep.*"])
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted([*found, "vlm.conf"])


def test_every_import_is_a_declared_requirement():
    modules = {"PIL": "pillow", "hydra": "hydra-core", "yaml": "pyyaml"}
    extras = [Requirement(text) for texts in PROJECT["project"]["optional-dependencies"].values() for text in texts]
    declared = {canonicalize_name(requirement.name) for requirement in [*requirements(), *extras]}
    declared |= {"lmms-eval", "vlmeval", "accelerate"}  # vlm.harnesses runs inside these, which bring themselves
    for folder in ("vlm", "data_prep", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            direct = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            direct += [
                node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
            ]
            for name in {dotted.partition(".")[0] for dotted in direct}:
                if name not in sys.stdlib_module_names and name not in ("vlm", "data_prep", "experiments"):
                    assert canonicalize_name(modules.get(name, name)) in declared, f"{path}: {name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for folder in ("vlm", "data_prep", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_a_wheel_holds_every_module_configuration_and_page_part(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for folder in ("vlm", "data_prep")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    expected |= {f"vlm/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert expected - inside == set()
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == {"vlm", "data_prep"}


def test_an_installed_wheel_composes_without_the_checkout(wheel, tmp_path):
    install = ["pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=120)
    code = "import vlm.build as b; c = b.compose(['experiment=purevlm']); print(b.__file__, c.config['name'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "site" / "vlm" / "build.py"), "purevlm"], done.stderr


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_runs_leave_is_ignored_also_where_it_is_a_link_and_code_never_is(tmp_path, kind):
    """A checkout whose data lie on another disk."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name in ("data", "runs", "models", "wandb", "outputs"):
        (tmp_path / name).symlink_to("elsewhere") if kind == "link" else (tmp_path / name).mkdir()
        for inner in ("vlm", "tests", "conf"):
            (tmp_path / inner / name).mkdir(parents=True)
            (tmp_path / inner / name / "file").touch()
    names = [
        "data",
        "runs",
        "models",
        "wandb",
        "outputs",
        "vlm/data/file",
        "tests/data/file",
        "conf/data/file",
        "vlm/models/file",
    ]
    asked = subprocess.run(["git", "check-ignore", *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.stdout.split() == names[:5]
