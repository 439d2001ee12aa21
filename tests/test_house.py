"""The house itself: what is importable, what is not, and that modules are quiet on import."""

import importlib.util
import json
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "serving", "training", "components", "pipelines")


def test_mlflow_is_the_installed_package() -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    assert "site-packages" in spec.origin
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found == listed
    assert "Private :: Do Not Upload" in settings["project"]["classifiers"]


def test_the_lock_is_what_is_installed() -> None:
    for line in (ROOT / "locks" / "main.txt").read_text(encoding="utf-8").splitlines():
        name, separator, rest = line.partition("==")
        if separator and not line.startswith(" "):
            assert distribution(name).version == rest.split()[0].rstrip("\\ "), name


def test_files_are_short_enough_to_tell_one_story() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 370
    }
    assert long == {}


@pytest.mark.parametrize(
    "module", ["data.contract", "serving.gateway.app", "training.recipe", "pipelines.local"]
)
def test_importing_touches_nothing(module: str, tmp_path: Path) -> None:
    code = f"""
import json, sys
seen = []
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and any(m in args[1] for m in "wax+"):
        seen.append(str(args[0]))
    if event.startswith("socket.connect"):
        seen.append(event)
sys.addaudithook(watch)
import {module}
print(json.dumps(seen))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    written = [name for name in json.loads(done.stdout.splitlines()[-1]) if "/dev/null" not in name]
    assert [name for name in written if str(ROOT / "var") in name or str(tmp_path) in name] == []
    assert not [name for name in written if name.startswith("socket")]
    assert list(tmp_path.iterdir()) == []
