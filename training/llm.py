"""QLoRA: a base and targets to an adapter, learnt on the answers alone.

Comes in: artifacts of kinds ``targets`` and ``language_model``. Goes out: one of kind
``language_adapter`` with PEFT's files, the tokenizer, ``lengths.json`` and ``quarantine.jsonl``
(examples longer than the limit; nothing is cut). Memory is looked at before a weight is loaded.

Source: QLoRA (arXiv 2305.14314).
"""

from pathlib import Path
from typing import Any, Final

import torch
from accelerate import PartialState  # type: ignore[import-untyped]  # it ships no types
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.artifacts import QUARANTINE_NAME, TARGETS_KIND
from data.errors import DataUnfitError
from data.manifest import (
    Manifest,
    canonical_digest,
    read_manifest,
    start_artifact,
    write_json,
    write_manifest,
)
from data.quarantine import write_quarantine
from data.targets import Example, read_examples
from serving.language_folder import (
    ADAPTER_KIND,
    check_chat_template,
    read_language_model,
    tokenizer_digest,
)
from training.language_examples import Rows, tokenise
from training.language_recipe import LanguageRecipe
from training.memory import check_memory, free_bytes
from training.nf4 import load_nf4
from training.stored_weights import copy_tokenizer, stored_tensors
from training.supervised import StageSettings, Trained, train_on_answers

LENGTHS_NAME: Final = "lengths.json"
_STATES_BYTES: Final = 16
"""Of a trained weight: itself, its gradient and Adam's two moments, in float32."""
_NF4_BYTES: Final = 0.55
_LAYER_TENSORS: Final = 24
"""Activations of a layer that backpropagation keeps, counted in tensors of the hidden size."""
_SPARE: Final = 0.9


def train_language_model(
    targets: Path, base: Path, recipe: LanguageRecipe, out: Path, *, checkpoints: Path
) -> Manifest:
    """Fine-tune an adapter over a base on the targets' training part.

    Args:
        targets: of kind targets.
        base: of kind language_model, not quantised.
        recipe: ``lora`` and ``tuning`` decide.
        out: folder of the adapter.
        checkpoints: where a run that is cut short goes on from; other recipes do not meet there.

    Raises:
        EngineError: the GPU that is to serve it lacks the recipe's format.
        ArtifactError: an input is not whole, is quantised, or its chat template has no mark.
        DataUnfitError: no example is of the recipe's tasks, or fits the limit of tokens.
        SettingsError: the memory at hand is too small for the recipe.
    """
    recipe.quantization.check_target()
    source = read_manifest(targets, TARGETS_KIND)
    parent = read_language_model(base)
    check_chat_template(base)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    examples = _examples(targets, recipe)
    rows = tokenise(tokenizer, examples, max_tokens=recipe.tuning.max_tokens)
    need = memory_need(base, recipe, longest=max(len(row.input_ids) for row in rows.fit))
    check_memory(need, int(memory_at_hand() * _SPARE), what=f"training by recipe {recipe.name!r}")
    state = PartialState()  # one process, or one of several that a launcher started
    if state.is_main_process:
        start_artifact(out)
    identity = [recipe.digest(), parent.digest, source.digest]
    work = checkpoints / "language" / canonical_digest(identity)[:16]
    trained = _train(base, tokenizer, rows, recipe, work)
    if state.is_main_process:
        trained.model.save_pretrained(out, state_dict=trained.weights)
        copy_tokenizer(base, out)
        write_json(out / LENGTHS_NAME, rows.report)
        write_quarantine(out / QUARANTINE_NAME, rows.too_long)
        facts = _facts(trained, rows, source, parent, recipe, base, need)
        write_manifest(out, ADAPTER_KIND, facts)
    state.wait_for_everyone()
    return read_manifest(out, ADAPTER_KIND)


def _examples(targets: Path, recipe: LanguageRecipe) -> list[Example]:
    """The training part's examples of the recipe's tasks."""
    tasks = recipe.tuning.tasks
    known = read_examples(targets / "train.jsonl")
    asked = [each for each in known if each.task in tasks]
    if not asked:
        there = sorted({each.task for each in known})
        raise DataUnfitError(
            f"tuning.tasks={list(tasks)!r}: the targets' training part has no such "
            f"example, it has {there!r}; name one of those, or build targets with summaries"
        )
    return asked


def memory_need(base: Path, recipe: LanguageRecipe, *, longest: int) -> int:
    """Bytes that training is reckoned to take: base, adapter with its states, activations, logits.

    Args:
        base: its files' headers are read, no weight.
        recipe: decides the base's type, the batch, and whether activations are recomputed.
        longest: tokens of the longest example.
    """
    shapes = {name: tensor.shape for name, tensor in stored_tensors(base).items()}
    weights = sum(_product(shape) for shape in shapes.values())
    matrices = [shape for name, shape in shapes.items() if len(shape) == 2 and "layers" in name]  # noqa: PLR2004  # a matrix
    adapter = sum(recipe.lora.rank * sum(shape) for shape in matrices)
    table = max(shapes.values(), key=_product)
    vocabulary, hidden = table[0], table[-1]
    layers = len({name.split("layers.")[1].split(".")[0] for name in shapes if "layers." in name})
    element = 2 if recipe.precision == "bfloat16" else 4
    inside = sum(_product(shape) for shape in matrices)
    stored = weights * element
    if recipe.tuning.quantized_base == "nf4":
        stored = int((weights - inside) * element + inside * _NF4_BYTES)
    row = recipe.tuning.max_tokens if recipe.tuning.packing else longest
    tokens = recipe.tuning.batch_examples * row
    kept = 1 if recipe.tuning.gradient_checkpointing else layers
    activations = tokens * hidden * element * (_LAYER_TENSORS * kept + layers)
    return int(stored + adapter * _STATES_BYTES + activations + tokens * vocabulary * 4 * 2)


def memory_at_hand() -> int:
    """Free bytes of the GPU where there is one, else of this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_bytes()


def _train(base: Path, tokenizer: Any, rows: Rows, recipe: LanguageRecipe, work: Path) -> Trained:
    from peft import LoraConfig

    settings = recipe.tuning
    model: Any
    if settings.quantized_base == "nf4":
        model = load_nf4(base, compute_dtype=getattr(torch, recipe.precision))
    else:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=recipe.precision, local_files_only=True
        )
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    return train_on_answers(
        model,
        tokenizer,
        rows.fit,
        StageSettings(
            name="answers",
            epochs=settings.epochs,
            batch_examples=settings.batch_examples,
            accumulation=settings.accumulation,
            learning_rate=settings.learning_rate,
            warmup_share=settings.warmup_share,
            max_tokens=settings.max_tokens,
            packing=settings.packing,
            gradient_checkpointing=settings.gradient_checkpointing,
            save_every_steps=settings.save_every_steps,
            seed=recipe.seed,
            bf16=recipe.precision == "bfloat16",
        ),
        work_dir=work,
        adapter=LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def _facts(
    trained: Trained,
    rows: Rows,
    source: Manifest,
    parent: Manifest,
    recipe: LanguageRecipe,
    base: Path,
    need: int,
) -> dict[str, Any]:
    return {
        "base_digest": parent.digest,
        "tokenizer_digest": tokenizer_digest(base),
        "quantized_base": recipe.tuning.quantized_base,
        "targets_digest": source.digest,
        "snapshot_id": source.facts["snapshot_id"],
        "prompts": source.facts["prompts"],
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "tasks": list(recipe.tuning.tasks),
        "curve": trained.curve,
        "tokens_per_s": trained.tokens_per_s,
        "reckoned_bytes": need,
        "lengths": rows.report,
        "quarantined": len(rows.too_long),
    }


def _product(shape: Any) -> int:
    total = 1
    for size in shape:
        total *= int(size)
    return total
