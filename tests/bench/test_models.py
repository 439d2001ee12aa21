import ast

import pytest

from bench import models, source_models
from bench.models import EMBEDDING_MADE_BY, embedding_folder
from bench.source_models import MADE_BY, ROOT, key_of, remove_stale

MAKERS = ("training.adopt_embedding", "training.export_embedding", "training.quantize_embedding")
NOT_OF_EMBEDDINGS = {"training/parity.py"}


def training_imports(module):
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_bytes())
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name for name in named if name and name.startswith("training.")}


def test_every_training_module_that_makes_a_model_is_in_its_key():
    found, asked = set(), set(MAKERS)
    while asked:
        module = asked.pop()
        found.add(f"{module.replace('.', '/')}.py")
        asked |= {
            each
            for each in training_imports(module)
            if f"{each.replace('.', '/')}.py" not in found | NOT_OF_EMBEDDINGS
        }
    assert found <= set(EMBEDDING_MADE_BY)
    for pattern in EMBEDDING_MADE_BY:
        assert list(ROOT.glob(pattern)), pattern


def test_a_key_follows_contents_versions_and_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(source_models, "ROOT", tmp_path)
    (tmp_path / "one.py").write_text("1")
    keys = [key_of(["*.py"], ["onnx"])]
    (tmp_path / "one.py").write_text("2")
    keys.append(key_of(["*.py"], ["onnx"]))
    (tmp_path / "two.py").write_text("")
    keys.append(key_of(["*.py"], ["onnx"]))
    keys.append(key_of(["*.py"], ["onnx", "torch"]))
    monkeypatch.setitem(source_models.SHAPE, "hidden_size", 1)
    keys.append(key_of(["*.py"], ["onnx", "torch"]))
    assert len(set(keys)) == len(keys)
    assert key_of(["*.py"], ["onnx", "torch"]) == keys[-1]


def test_what_other_code_made_is_removed_and_nothing_else(tmp_path):
    for name in ("embedding-old", "embedding-new", "onnx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "graph").touch()
    remove_stale(tmp_path / "embedding-new", "embedding-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding-new", "onnx"]


def test_a_folder_that_is_not_whole_is_not_returned(tmp_path, monkeypatch):
    monkeypatch.setenv("MATJIP_CACHE", str(tmp_path))
    folder = models._embedding_folder("minilm")
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="make bench-setup"):
        embedding_folder("minilm")
    (folder / "manifest.json").touch()
    assert embedding_folder("minilm") == folder
    assert tmp_path in folder.parents
    assert set(MADE_BY) <= set(EMBEDDING_MADE_BY)
