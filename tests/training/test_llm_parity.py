"""The parity chain: a link that holds is measured, one that is broken on purpose names itself."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from data.errors import ArtifactError, DataUnfitError, ExportError, SettingsError
from data.examples import read_examples
from data.manifest import MANIFEST_NAME, read_manifest, write_manifest
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.chat_transformers import TransformersChatEngine
from serving.language_model import load_language_model
from training.answer_scores import load_tokenizer, prompt_ids
from training.llm_parity import PARITY_KIND, PARITY_NAME, Asking, check_parity_chain
from training.merge_llm import merge_adapter
from training.parity_limits import LIMITS

COUNT = 8
LOOSE = LIMITS["w8a8"].model_copy(update={"top1_agreement": 0.8, "kl_mean": 0.2})
"""A random model's likeliest tokens are near ties."""
SERVED = LIMITS["served"].model_copy(update={"score_drop": 0.03})
"""One of eight answers with one of five fields wrong is 0.025."""


class GoldEngine:
    """Answers with the gold answers; what differs is set on purpose."""

    def __init__(self, folder, targets, *, changed=0, more_tokens=0, error=None):
        self.name = "gold"
        examples = read_examples(targets / "validation.jsonl")
        tokenizer = load_tokenizer(folder)
        self._known = {
            each.messages[-1]["content"]: (each.answer, len(prompt_ids(tokenizer, each)))
            for each in examples
        }
        self._changed, self._more, self._error = changed, more_tokens, error

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        answers = []
        for number, request in enumerate(requests):
            assert request.schema is not None
            assert request.temperature == 0
            text, tokens = self._known[request.messages[-1]["content"]]
            if number < self._changed:
                text = text.replace("absent", "mixed")
            finish = "error" if self._error else "stop"
            answers.append(ChatAnswer(text, finish, tokens + self._more, 9, self._error))
        return answers


@pytest.fixture
def parts(tiny_adapter, tiny_base, tiny_merged, tiny_w8a8, language_targets):
    """The whole chain's folders, by argument."""
    return {
        "targets": language_targets,
        "adapter": tiny_adapter,
        "base": tiny_base,
        "merged": tiny_merged,
        "quantized": tiny_w8a8,
    }


def check(out, parts, **more):
    limits = {"w8a8": LOOSE, "served": SERVED}
    return check_parity_chain(out, **parts, limits=limits, examples=COUNT, **more)


def altered(folder, out, change, **facts):
    """A sealed copy, changed."""
    shutil.copytree(folder, out)
    old = json.loads((out / MANIFEST_NAME).read_text(encoding="utf-8"))
    change(out)
    write_manifest(out, old["kind"], old["facts"] | facts)
    return out


def scale(name, factor):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        weights[name] = (weights[name].float() * factor).to(weights[name].dtype)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return change


def broken(out, parts, **more):
    """The error of a chain that breaks, and the report that is left."""
    with pytest.raises(ExportError) as refused:
        check(out, parts, **more)
    assert not (out / MANIFEST_NAME).exists()
    report = json.loads((out / PARITY_NAME).read_text(encoding="utf-8"))
    *whole, last = report["links"]
    assert str(refused.value) == f"the link {last['name']} is broken: {last['problem']}"
    assert all(link["problem"] is None for link in whole)
    return str(refused.value)


def test_a_chain_that_holds_is_measured_link_by_link(tmp_path, parts):
    facts = check(tmp_path / "out", parts).facts
    first, second = facts["links"]
    assert (first["name"], second["name"]) == ("adapter → merged", "merged → quantized")
    assert first["prompts"] == first["scores"]["examples"] == COUNT
    assert first["scores"]["max_abs_diff"] < 1e-4
    assert first["scores"]["top1_agreement"] == 1.0
    assert second["scores"]["max_abs_diff"] > 1e-3  # INT8 is never the same
    assert second["scores"]["kl_mean"] > first["scores"]["kl_mean"]
    assert second["scores"]["perplexity_before"] == first["scores"]["perplexity_after"]
    assert facts["stages"]["quantized"] == read_manifest(parts["quantized"]).digest
    assert read_manifest(tmp_path / "out", PARITY_KIND).facts == facts
    written = json.loads((tmp_path / "out" / PARITY_NAME).read_text(encoding="utf-8"))
    assert written == {key: facts[key] for key in ("links", "engines", "left_out")}
    assert "compared with itself" in written["left_out"]["served"]


def test_an_adapter_over_nf4_is_compared_in_nf4(
    tmp_path, tiny_adapter, tiny_base, language_targets
):
    merged = tmp_path / "merged"
    merge_adapter(tiny_adapter, tiny_base, merged, through_nf4=True)
    parts = {
        "targets": language_targets,
        "adapter": tiny_adapter,
        "base": tiny_base,
        "merged": merged,
    }
    (link,) = check(tmp_path / "out", parts).facts["links"]
    assert link["scores"]["max_abs_diff"] < 1e-3
    # The same adapter merged into float weights is another model, and said to be.
    parts["merged"] = altered(
        merged,
        tmp_path / "float",
        lambda folder: merge_adapter(tiny_adapter, tiny_base, folder),
        through_nf4=True,
    )
    assert "adapter → merged is broken: logits differ" in broken(tmp_path / "again", parts)


def test_an_altered_weight_matrix_is_found_in_its_block(tmp_path, parts):
    parts.pop("quantized")
    name = "model.layers.1.mlp.down_proj.weight"
    parts["merged"] = altered(parts["merged"], tmp_path / "merged", scale(name, 1.05))
    message = broken(tmp_path / "out", parts)
    assert message.startswith("the link adapter → merged is broken: logits differ (max_abs_diff=")
    assert "hidden states part at block 1" in message


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("model.embed_tokens.weight", "hidden states part at the embeddings"),
        ("model.layers.0.self_attn.o_proj.weight_scale", "hidden states part at block 0"),
        ("model.layers.1.self_attn.v_proj.weight_scale", "hidden states part at block 1"),
    ],
)
def test_an_altered_quantised_weight_is_found_in_its_block(tmp_path, parts, name, where):
    parts["quantized"] = altered(parts["quantized"], tmp_path / "w8a8", scale(name, 3.0))
    message = broken(tmp_path / "out", parts)
    assert message.startswith("the link merged → quantized is broken: logits differ (")
    assert where in message


def test_another_chat_template_is_found_in_the_prompts(tmp_path, parts):
    def change(folder):
        template = folder / "chat_template.jinja"
        text = template.read_text(encoding="utf-8").replace("'<|im_end|>\\n'", "'<|im_end|> '")
        assert text != template.read_text(encoding="utf-8")
        template.write_text(text, encoding="utf-8")

    parts["quantized"] = altered(parts["quantized"], tmp_path / "w8a8", change)
    message = broken(tmp_path / "out", parts)
    assert message.startswith("the link merged → quantized is broken: the prompt of ")
    assert "has other token ids from token" in message
    assert "'\\n' became" in message


def test_a_template_without_the_generation_mark_is_found_though_prompts_are_equal(tmp_path, parts):
    def change(folder):
        template = folder / "chat_template.jinja"
        text = template.read_text(encoding="utf-8")
        for mark in ("{%- generation -%}", "{%- endgeneration -%}"):
            assert mark in text
            text = text.replace(mark, "")
        template.write_text(text, encoding="utf-8")

    parts["merged"] = altered(parts["merged"], tmp_path / "merged", change)
    message = broken(tmp_path / "out", {**parts, "quantized": None})
    assert "adapter → merged is broken: the tokenizers differ in ['chat_template.jinja']" in message


def test_another_tokenizer_is_found_in_the_prompts(tmp_path, parts, tiny_language):
    def change(folder):
        tiny_language.write_tokenizer(folder, vocabulary=400)

    parts["merged"] = altered(parts["merged"], tmp_path / "merged", change)
    message = broken(tmp_path / "out", parts)
    assert message.startswith("the link adapter → merged is broken: the prompt of ")
    assert "has other token ids from token" in message


def test_a_model_made_of_another_is_refused(tmp_path, parts):
    parts["quantized"] = altered(
        parts["quantized"], tmp_path / "w8a8", lambda _: None, parent_digest="0" * 64
    )
    message = broken(tmp_path / "out", parts)
    assert "merged → quantized is broken" in message
    assert "was made with parent_digest='0000" in message


def test_the_served_link_is_measured(tmp_path, parts):
    here, there = (
        GoldEngine(parts["quantized"], parts["targets"], changed=changed) for changed in (0, 1)
    )
    links = check(tmp_path / "out", parts, engines={"quantized": here, "served": there}).facts[
        "links"
    ]
    answers = links[-1]["answers"]
    assert links[-1]["name"] == "quantized → served"
    assert links[1]["answers"] is None  # merged has no engine
    assert answers["agreement"] == 1 - 1 / COUNT
    assert answers["score_before"] == 1.0
    assert answers["score_after"] == pytest.approx(1 - 1 / 5 / COUNT)  # one field of five


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"changed": 3}, "answers agree in 0.625 < 0.8; the task score falls by 0.075 > 0.03"),
        ({"more_tokens": 2}, "tokens and was read as"),
        ({"error": "no such model"}, "gold did not answer"),
    ],
)
def test_a_broken_served_link_names_itself(tmp_path, parts, changed, message):
    engines = {
        "quantized": GoldEngine(parts["quantized"], parts["targets"]),
        "served": GoldEngine(parts["quantized"], parts["targets"], **changed),
    }
    found = broken(tmp_path / "out", parts, engines=engines)
    assert found.startswith("the link quantized → served is broken: ")
    assert message in found


def test_the_first_answer_that_differs_is_shown(tmp_path, parts):
    engines = {
        "quantized": GoldEngine(parts["quantized"], parts["targets"]),
        "served": GoldEngine(parts["quantized"], parts["targets"], changed=COUNT),
    }
    message = broken(tmp_path / "out", parts, engines=engines)
    assert "(labels) from character" in message
    assert "'absent" in message
    assert "became 'mixed" in message


def test_token_ids_come_before_answers(tmp_path, parts):
    here = GoldEngine(parts["quantized"], parts["targets"])

    class Misreading(GoldEngine):
        async def token_ids(self, messages):
            return [1, 2, 3]

        async def complete(self, requests):
            raise AssertionError("asked though it reads other prompts")

    there = Misreading(parts["quantized"], parts["targets"])
    engines = {"quantized": here, "served": there}
    found = broken(tmp_path / "out", parts, engines=engines, reader=there)
    assert found.startswith(
        "the link quantized → served is broken: gold reads other token ids in the prompt of "
    )


def test_whole_answers_are_asked_of_the_short_ones(tmp_path, parts):
    class Noting(GoldEngine):
        async def complete(self, requests):
            asked.append([request.max_tokens for request in requests])
            return await super().complete(requests)

    asked = []
    engines = {
        stage: Noting(parts["quantized"], parts["targets"]) for stage in ("quantized", "served")
    }
    tokenizer = load_tokenizer(parts["quantized"])
    lengths = sorted(
        len(tokenizer.encode(each.answer))
        for each in read_examples(parts["targets"] / "validation.jsonl")
    )
    most = lengths[len(lengths) // 2]
    asking = Asking(count=3, task="labels", max_tokens=most)
    facts = check(tmp_path / "out", parts, engines=engines, asking=asking).facts
    assert asked == [[most] * 3] * 2
    assert facts["links"][-1]["prompts"] == facts["links"][-1]["answers"]["examples"] == 3
    assert facts["links"][0]["prompts"] == COUNT
    assert facts["engines"] == {"quantized": "gold", "served": "gold"}
    assert facts["left_out"] == {}
    nothing = Asking(count=3, task="labels", max_tokens=lengths[0] // 2)
    with pytest.raises(DataUnfitError, match="has an answer of at most"):
        check(tmp_path / "again", parts, engines=engines, asking=nothing)


def test_real_engines_of_one_model_agree(tmp_path, parts):
    here, there = (
        TransformersChatEngine(load_language_model(parts["quantized"])) for _ in range(2)
    )
    try:
        (link,) = check_parity_chain(
            tmp_path / "out",
            targets=parts["targets"],
            merged=parts["quantized"],
            engines={"merged": here, "served": there},
            examples=2,
        ).facts["links"]
    finally:
        here.close()
        there.close()
    assert link["name"] == "merged → served"
    assert link["answers"]["agreement"] == 1.0
    assert link["answers"]["first_difference"] is None


@pytest.mark.parametrize("missing", ["base", "adapter"])
def test_a_chain_of_one_stage_is_none(tmp_path, parts, missing):
    one = {"targets": parts["targets"], "merged": parts["merged"]}
    if missing == "base":
        one["adapter"] = parts["adapter"]
    with pytest.raises(SettingsError, match="there is no chain"):
        check(tmp_path / "out", one)


def test_what_is_served_needs_something_to_be_compared_with(tmp_path, parts):
    engines = {"served": GoldEngine(parts["quantized"], parts["targets"])}
    with pytest.raises(SettingsError, match="compared with 'quantized', which has no engine"):
        check(tmp_path / "out", parts, engines=engines)


def test_an_altered_folder_is_refused(tmp_path, parts):
    folder = Path(shutil.copytree(parts["merged"], tmp_path / "merged"))
    scale("model.norm.weight", 2.0)(folder)
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*altered"):
        check(tmp_path / "out", {**parts, "merged": folder})
