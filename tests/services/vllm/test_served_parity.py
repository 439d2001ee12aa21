"""The parity chain to its end: vLLM, on a CPU, serves the INT8 that was made, or another one."""

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data.errors import ExportError
from data.manifest import write_labelled_reviews, write_manifest
from data.sources.synthetic import generate
from data.targets import build_targets
from serving.language_folder import ADAPTER_KIND
from serving.vllm_settings import DEFAULT_PATH
from training.language_delivery import LanguageParitySettings, compare_language_chain
from training.merge_llm import merge_adapter
from training.parity_limits import LIMITS

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
MAKER = Path(__file__).parents[2] / "tiny_language_model.py"
LOOSE = LIMITS["w8a8"].model_copy(
    update={"top1_agreement": 0.8, "kl_mean": 0.2, "answer_agreement": 0.15, "score_drop": 1.0}
)
"""A random model's likeliest tokens are near ties, and what it says scores by chance."""
SETTINGS = LanguageParitySettings(
    examples=8, answers=16, answer_tokens=200, limits={"w8a8": LOOSE, "served": LOOSE}
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled reviews as prompts and answers; the validation part is what is asked."""
    made = tmp_path_factory.mktemp("targets")
    rows = [
        row.model_copy(
            update={"review": row.review.model_copy(update={"restaurant_id": f"s{number // 10}"})}
        )
        for number, row in enumerate(generate(60, seed=5))
    ]
    (made / "split").mkdir()
    parts = {"train": rows[:20], "validation": rows[20:40], "test": rows[40:]}
    for part, own in parts.items():
        write_labelled_reviews(made / "split" / f"{part}.jsonl", own)
    write_manifest(made / "split", "split", {"seed": 0, "snapshot_id": "synthetic"})
    build_targets(made / "split", None, made / "targets")
    return made / "targets"


def make_chain(made: Path, seed: int) -> dict[str, Path]:
    """base, adapter, merged and quantized, all from one seed; every chain has one tokenizer."""
    tiny: Any = SimpleNamespace(**runpy.run_path(str(MAKER)))
    folders = {name: made / name for name in ("base", "adapter", "merged", "quantized")}
    tiny.write_model(folders["base"], seed=seed)
    said = tiny.write_adapter(
        folders["adapter"], folders["base"], seed=seed + 1, quantized_base="none"
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy2(folders["base"] / name, folders["adapter"] / name)
    write_manifest(folders["adapter"], ADAPTER_KIND, said.facts)
    merge_adapter(folders["adapter"], folders["base"], folders["merged"])
    tiny.write_quantized(folders["quantized"], folders["merged"])
    return folders


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_chain(tmp_path_factory.mktemp("served"), 1)


@pytest.fixture(scope="module")
def server(start_vllm: Any, chain: dict[str, Path]) -> Any:
    """Serves the chain's INT8, in the type that it computes in here."""
    folder = chain["quantized"].parent / "log"
    folder.mkdir()
    values = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    values["dtype"] = "float32"
    values["profiles"]["cpu"]["max_model_len"] = 1024
    settings = folder / "vllm.yaml"
    settings.write_text(yaml.safe_dump(values), encoding="utf-8")
    return start_vllm(chain["quantized"], folder, "--settings", str(settings))


def said(out: Path) -> Any:
    return json.loads((out / "parity.json").read_bytes())


def test_the_chain_holds_from_the_adapter_to_vllm(
    server: Any, chain: dict[str, Path], targets: Path, tmp_path: Path
) -> None:
    manifest = compare_language_chain(
        targets, **chain, settings=SETTINGS, out=tmp_path, served_url=server.url
    )
    found = said(tmp_path)
    names = ["adapter → merged", "merged → quantized", "quantized → served"]
    assert [link["name"] for link in found["links"]] == names
    assert [link["problem"] for link in found["links"]] == [None] * 3
    assert found["engines"]["served"] == "vllm matjip"
    assert found["left_out"] == {}
    last = found["links"][-1]
    assert last["prompts"] == last["answers"]["examples"] == SETTINGS.answers
    assert last["answers"]["agreement"] >= LOOSE.answer_agreement
    assert manifest.facts["links"] == found["links"]


def test_another_model_behind_the_address_breaks_the_last_link(
    server: Any, targets: Path, tmp_path: Path
) -> None:
    other = make_chain(tmp_path, 11)
    with pytest.raises(ExportError, match="the link quantized → served is broken: answers agree"):
        compare_language_chain(
            targets, **other, settings=SETTINGS, out=tmp_path / "parity", served_url=server.url
        )
    *whole, last = said(tmp_path / "parity")["links"]
    assert [link["problem"] for link in whole] == [None, None]
    assert last["answers"]["agreement"] < LOOSE.answer_agreement
    assert "became" in last["answers"]["first_difference"]


def test_a_name_that_nobody_serves_breaks_the_last_link_before_any_answer(
    server: Any, chain: dict[str, Path], targets: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"served_model": "nobody"})
    with pytest.raises(ExportError, match="quantized → served is broken: vllm nobody") as refused:
        compare_language_chain(
            targets, **chain, settings=settings, out=tmp_path, served_url=server.url
        )
    assert "`nobody` does not exist" in str(refused.value)
    assert said(tmp_path)["links"][-1]["answers"] is None
