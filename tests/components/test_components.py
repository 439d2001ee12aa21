"""Components are thin: one file, one function, one call; and every one is wired into a graph."""

import ast
import importlib
from pathlib import Path

import pytest

from components.profiles import MAIN
from pipelines.cluster import GRAPHS
from pipelines.placement import local_placement
from pipelines.real_data import train_and_report

FOLDER = Path(__file__).resolve().parents[2] / "components"
HELPERS = {"__init__", "profiles", "artifacts"}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)


def _function(name: str) -> ast.FunctionDef:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return function


@pytest.mark.parametrize("name", NAMES)
def test_a_component_is_its_file(name: str) -> None:
    function = _function(name)
    assert function.name == name
    assert ast.get_docstring(function)
    component = getattr(importlib.import_module(f"components.{name}"), name)
    container = component.component_spec.implementation.container
    assert container.image == MAIN
    assert not any("pip install" in part for part in container.command)


@pytest.mark.parametrize("name", NAMES)
def test_a_component_holds_no_logic(name: str) -> None:
    function = _function(name)
    logic = (ast.If, ast.For, ast.While, ast.Try, ast.With)
    assert not [node for node in ast.walk(function) if isinstance(node, logic)]
    statements = [n for n in function.body if not isinstance(n, ast.ImportFrom | ast.Import)]
    assert len(statements) <= 6


@pytest.mark.parametrize("name", NAMES)
def test_a_component_imports_only_in_its_body(name: str) -> None:
    # KFP ships the function's source alone; what it needs must stand inside.
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules <= {"kfp", "kfp.dsl", "components.profiles"}


def test_every_component_is_in_a_graph() -> None:
    placement = local_placement("0")
    graphs = [build(placement) for build in GRAPHS.values()]
    graphs.append(train_and_report(placement, "real", corpus_from_split=True))
    wired = {
        spec.removeprefix("comp-").replace("-", "_")
        for graph in graphs
        for spec in graph.pipeline_spec.components
    }
    assert set(NAMES) <= wired
