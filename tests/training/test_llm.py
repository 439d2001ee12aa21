"""QLoRA on a CPU: the adapter learns, a killed run goes on, and what cannot be is refused first."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from data.artifacts import QUARANTINE_NAME, TARGETS_KIND
from data.errors import ArtifactError, DataUnfitError, EngineError, SettingsError
from data.manifest import read_manifest, write_manifest
from data.targets import read_examples, write_examples
from serving.adapter_folder import read_adapter
from serving.language_folder import LANGUAGE_MODEL_KIND
from training.language_base import make_language_base
from training.language_recipe import LanguageRecipe, parse_language_recipe
from training.llm import LENGTHS_NAME, memory_need, train_language_model
from training.supervised import StageSettings, _arguments
from training.synthetic_examples import synthetic_summaries

SMALL = """
name: small
threads: 1
lora: {rank: 8, alpha: 16, dropout: 0.0}
tuning: {quantized_base: nf4, epochs: 1, batch_examples: 16, learning_rate: 1.0e-2,
         save_every_steps: 2}
"""


@pytest.fixture(scope="module")
def recipe() -> LanguageRecipe:
    return parse_language_recipe(SMALL)


@pytest.fixture(scope="module")
def adapter(
    tmp_path_factory: pytest.TempPathFactory,
    recipe: LanguageRecipe,
    language_targets: Path,
    tiny_base: Path,
) -> Path:
    folder = tmp_path_factory.mktemp("llm") / "adapter"
    work = tmp_path_factory.mktemp("llm-work")
    train_language_model(language_targets, tiny_base, recipe, folder, checkpoints=work)
    return folder


def _with(recipe: LanguageRecipe, **changes: Any) -> LanguageRecipe:
    return recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update=changes)})


def test_the_adapter_learns_and_says_what_it_fits(adapter, tiny_base, language_targets):
    facts = read_adapter(adapter, read_manifest(tiny_base)).facts
    assert facts["quantized_base"] == "nf4"
    assert facts["targets_digest"] == read_manifest(language_targets).digest
    assert facts["curve"][-1][1] < facts["curve"][0][1]
    assert facts["tokens_per_s"] > 0
    assert json.loads((adapter / LENGTHS_NAME).read_bytes()) == facts["lengths"]
    assert (adapter / QUARANTINE_NAME).read_bytes() == b""


def test_the_base_stays_and_the_adapter_changes_what_is_said(adapter, tiny_base):
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_base, local_files_only=True)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = base(ids).logits
        laid: Any = PeftModel.from_pretrained(base, str(adapter))
        after = laid(ids).logits
    assert (before - after).abs().max() > 0.01


def test_a_killed_run_goes_on(
    adapter, recipe, language_targets, tiny_base, tmp_path, monkeypatch, capsys
):
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    import training.supervised as module

    real = module._Progress

    def deadly(stage: str) -> Any:
        return type("Both", (real, Kill), {})(stage)

    monkeypatch.setattr(module, "_Progress", deadly)
    arguments = (language_targets, tiny_base, recipe, tmp_path / "adapter")
    with pytest.raises(KeyboardInterrupt):
        train_language_model(*arguments, checkpoints=tmp_path / "work")
    monkeypatch.setattr(module, "_Progress", real)
    capsys.readouterr()
    train_language_model(*arguments, checkpoints=tmp_path / "work")
    printed = capsys.readouterr().out
    assert "step 3/" in printed
    assert "step 2/" not in printed  # it went on after the checkpoint of step 2
    whole, resumed = (
        read_manifest(each).facts["curve"] for each in (adapter, tmp_path / "adapter")
    )
    assert [step for step, _ in resumed] == [step for step, _ in whole]


def test_a_base_without_a_mark_is_refused(recipe, language_targets, tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("generation", "quiet"), encoding="utf-8")
    write_manifest(folder, LANGUAGE_MODEL_KIND, read_manifest(tiny_base).facts)
    with pytest.raises(ArtifactError, match="mark around the assistant's words"):
        train_language_model(
            language_targets, folder, recipe, tmp_path / "out", checkpoints=tmp_path / "work"
        )


def test_examples_that_do_not_fit_are_quarantined_not_cut(
    recipe, language_targets, tiny_base, tmp_path, adapter
):
    lengths = read_manifest(adapter).facts["lengths"]["all"]
    limit = int(lengths["p50"])
    manifest = train_language_model(
        language_targets,
        tiny_base,
        _with(recipe, max_tokens=limit, epochs=0.2),
        tmp_path / "out",
        checkpoints=tmp_path / "work",
    )
    lines = (tmp_path / "out" / QUARANTINE_NAME).read_text(encoding="utf-8").splitlines()
    assert 0 < manifest.facts["quarantined"] == len(lines) < lengths["examples"]
    with pytest.raises(DataUnfitError, match=r"raise tuning\.max_tokens"):
        train_language_model(
            language_targets,
            tiny_base,
            _with(recipe, max_tokens=64),
            tmp_path / "none",
            checkpoints=tmp_path / "work",
        )


def test_only_the_tasks_that_are_named_are_learnt(recipe, language_targets, tiny_base, tmp_path):
    targets = tmp_path / "targets"
    shutil.copytree(language_targets, targets)
    known = read_examples(targets / "train.jsonl")
    summaries = synthetic_summaries(2, seed=3)
    write_examples(targets / "train.jsonl", [*summaries, *known])
    write_manifest(targets, TARGETS_KIND, read_manifest(language_targets).facts)

    def learnt(*tasks: str) -> set[str]:
        changed = _with(recipe, tasks=tasks, epochs=0.2)
        out = tmp_path / "-".join(tasks)
        facts = train_language_model(
            targets, tiny_base, changed, out, checkpoints=tmp_path / "work"
        ).facts
        assert facts["tasks"] == list(tasks)
        return set(facts["lengths"]) - {"all"}

    assert learnt("overall", "aspect") == {"overall", "aspect"}
    assert learnt("labels") == {"labels"}
    with pytest.raises(DataUnfitError, match=r"tuning\.tasks=\['strengths'\].*has \['labels'\]"):
        train_language_model(
            language_targets,
            tiny_base,
            _with(recipe, tasks=("strengths",)),
            tmp_path / "none",
            checkpoints=tmp_path / "work",
        )


def test_a_format_that_the_serving_gpu_lacks_is_refused_before_anything_is_read(recipe, tmp_path):
    blackwell = recipe.quantization.model_copy(update={"target_capability": "10.0"})
    refused = recipe.model_copy(update={"quantization": blackwell})
    missing = tmp_path / "missing"
    with pytest.raises(EngineError, match=r"'w8a8' does not run on compute capability 10\.0"):
        train_language_model(missing, missing, refused, tmp_path, checkpoints=tmp_path)
    with pytest.raises(EngineError, match=r"'w8a8' does not run on compute capability 10\.0"):
        make_language_base(missing, refused, tmp_path, checkpoints=tmp_path)


@pytest.mark.parametrize(("steps", "warm"), [(21, 2), (1_165, 59)])
def test_warm_up_is_a_share_of_the_steps_that_packing_and_processes_leave(tmp_path, steps, warm):
    stage = StageSettings(
        name="answers",
        epochs=3,
        batch_examples=2,
        accumulation=8,
        learning_rate=2e-4,
        warmup_share=0.05,
        max_tokens=2_048,
        packing=True,
        gradient_checkpointing=True,
        save_every_steps=10,
        seed=1,
        bf16=False,
    )
    arguments = _arguments(stage, tmp_path)
    assert arguments.get_warmup_steps(steps) == warm
    assert arguments.logging_steps * steps < steps / 10  # ten lines of progress at least


def test_memory_is_reckoned_before_anything_is_loaded(recipe, tiny_base):
    need = memory_need(tiny_base, recipe, longest=500)
    assert memory_need(tiny_base, recipe, longest=1000) > need
    assert memory_need(tiny_base, _with(recipe, quantized_base="none"), longest=500) > need


def test_too_little_memory_stops_it_before_it_starts(
    recipe, language_targets, tiny_base, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.llm.memory_at_hand", lambda: 1_000_000)
    with pytest.raises(SettingsError, match=r"training by recipe 'small' needs .* GiB of memory"):
        train_language_model(
            language_targets, tiny_base, recipe, tmp_path / "out", checkpoints=tmp_path / "work"
        )
    assert not (tmp_path / "out").exists()
