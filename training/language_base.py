"""The base that fine-tuning starts from: a pretrained checkpoint by name, or a small one made here.

What is made here is a Qwen3 of a few million weights with a tokenizer of its own. It learns
reviews and the forms of answers from synthetic reviews and restaurants, and reads the training
part's texts, never its labels. Too small for production; there so that every later step has
something to do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from data.artifacts import TARGETS_KIND
from data.errors import SettingsError
from data.manifest import Manifest, canonical_digest, read_manifest, start_artifact, write_manifest
from data.prompts import INSTRUCTIONS, chat_template
from data.sources.synthetic import generate
from data.targets import Example, points_of, read_examples
from serving.language_folder import (
    CHAT_TEMPLATE_NAME,
    LANGUAGE_MODEL_KIND,
    refuse_code,
    tokenizer_digest,
)
from training.clause_reading import reading_lessons
from training.language_examples import tokenise
from training.language_pretraining import (
    Lesson,
    PretrainingStage,
    lesson_of_row,
    lesson_of_text,
    pretrain,
)
from training.language_recipe import LanguageRecipe
from training.language_tokenizer import (
    END,
    PAD,
    SPECIAL_TOKENS,
    tokenizer_texts,
    train_language_tokenizer,
)
from training.synthetic_examples import synthetic_labels, synthetic_summaries
from training.word_vectors import word_vectors

_VECTOR_SCALE: Final = 0.08
_TEXT_TOKENS: Final = 120


def make_language_base(
    targets: Path, recipe: LanguageRecipe, out: Path, *, checkpoints: Path
) -> Manifest:
    """Adopt the recipe's pretrained checkpoint, or make a base on the spot.

    Args:
        targets: its training part's prompts are read, so that the tokenizer knows their words.
        recipe: ``base`` and ``pretraining`` decide.
        out: folder of kind language_model, role base.
        checkpoints: where a run that is cut short goes on from.

    Raises:
        EngineError: the GPU that is to serve it lacks the recipe's format.
        SettingsError: the pretrained checkpoint cannot be had, or asks to run code of its own.
        ArtifactError: the targets are not whole, or ``out`` cannot be written.
    """
    recipe.quantization.check_target()
    source = read_manifest(targets, TARGETS_KIND)
    start_artifact(out)
    facts: dict[str, Any] = {"role": "base", "format": recipe.precision, "recipe": recipe.name}
    if recipe.base.pretrained is not None:
        adopt_checkpoint(recipe.base.pretrained, recipe, out)
        facts |= {"made": "adopted", "name": recipe.base.pretrained}
    else:
        identity = [recipe.base.model_dump(), recipe.pretraining.model_dump(), source.digest]
        work = checkpoints / "language-base" / canonical_digest(identity)[:16]
        facts |= _make(read_examples(targets / "train.jsonl"), recipe, out, work)
        facts |= {"made": "on the spot", "targets_digest": source.digest}
    facts["tokenizer_digest"] = tokenizer_digest(out)
    return write_manifest(out, LANGUAGE_MODEL_KIND, facts)


def adopt_checkpoint(name: str, recipe: LanguageRecipe, out: Path) -> None:
    """Bring a pretrained checkpoint into a base's folder, with matjip's chat template.

    Raises:
        SettingsError: it cannot be had, or asks to run code of its own.
    """
    folder = Path(name)
    if folder.is_dir():
        refuse_code(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=recipe.precision, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError, HFValidationError) as error:
        raise SettingsError(
            f"base.pretrained={name!r} cannot be loaded: {error}; check the name, or that the hub "
            "can be reached, or pass a folder, or remove the key to make a base on the spot"
        ) from error
    missing = [each for each in SPECIAL_TOKENS[1:] if each not in tokenizer.get_vocab()]
    if missing:
        raise SettingsError(
            f"base.pretrained={name!r} has no tokens {missing!r}, which the chat template marks "
            "turns with; take an instruct model of the Qwen family"
        )
    model.save_pretrained(out)
    _save_tokenizer(tokenizer, out)


def _save_tokenizer(tokenizer: Any, out: Path) -> None:
    tokenizer.chat_template = chat_template()
    tokenizer.save_pretrained(out)
    # Written as it stands in data/, so that equal templates have equal bytes.
    (out / CHAT_TEMPLATE_NAME).write_text(chat_template(), encoding="utf-8")


def _make(
    known: Sequence[Example], recipe: LanguageRecipe, out: Path, work_dir: Path
) -> dict[str, Any]:
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    settings = recipe.pretraining
    examples = [
        *synthetic_labels(settings.synthetic_reviews, seed=recipe.seed),
        *synthetic_summaries(settings.synthetic_restaurants, seed=recipe.seed + 1),
    ]
    texts = tokenizer_texts(examples, known)
    tokenizer = train_language_tokenizer(texts, vocabulary=recipe.base.vocabulary)
    rows = tokenise(tokenizer, examples, max_tokens=recipe.base.context_tokens)
    lessons = [*map(lesson_of_row, rows.fit), *_texts(tokenizer, known)]
    reading = reading_lessons(
        tokenizer, points_of(generate(settings.clause_reviews, seed=recipe.seed + 2))
    )
    model = _fresh(recipe, tokenizer, [lesson.input_ids for lesson in lessons])
    # Clauses first: without them a model of this size answers in form, and every clause is food.
    stages = [
        PretrainingStage("clauses", 1.0, **_shared(recipe)),
        PretrainingStage("reviews and answers", settings.epochs, **_shared(recipe)),
    ]
    trained = {
        stage.name: pretrain(model, taught, stage, work_dir=work_dir / stage.name)
        for stage, taught in zip(stages, (reading, lessons), strict=True)
        if taught
    }
    model.to(getattr(torch, recipe.precision)).save_pretrained(out)
    _save_tokenizer(tokenizer, out)
    last = trained[stages[-1].name]
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "vocabulary": len(tokenizer),
        "lengths": rows.report,
        "left_out": len(rows.too_long),
        "curve": last.curve,
        "curves": {name: each.curve for name, each in trained.items()},
        "tokens_per_s": last.tokens_per_s,
    }


def _shared(recipe: LanguageRecipe) -> dict[str, Any]:
    settings = recipe.pretraining
    return {
        "batch_tokens": settings.batch_tokens,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "save_every_steps": recipe.tuning.save_every_steps,
        "seed": recipe.seed,
    }


def _texts(tokenizer: PreTrainedTokenizerFast, known: Sequence[Example]) -> list[Lesson]:
    """The training part's reviews, to be read word by word: every token is learnt.

    Several make a row, about as long as an example, so that batches mix both.
    """
    contents = [each.messages[-1]["content"] for each in known if each.task == "labels"]
    reviews = [content.removeprefix(INSTRUCTIONS["labels"]).strip() for content in contents]
    read = tokenizer(reviews, add_special_tokens=False)["input_ids"] if reviews else []
    rows: list[list[int]] = [[]]
    for ids in read:
        if len(rows[-1]) > _TEXT_TOKENS:
            rows.append([])
        rows[-1] += [*ids, PAD]  # <|endoftext|>, which pads elsewhere, parts texts here
    return [lesson_of_text(ids) for ids in rows if ids]


def _fresh(
    recipe: LanguageRecipe, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Sequence[int]]
) -> Qwen3ForCausalLM:
    """A new model whose embeddings know which tokens stand near one another."""
    sizes = recipe.base
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.attention_heads,
            num_key_value_heads=sizes.key_value_heads,
            head_dim=sizes.head_size,
            intermediate_size=sizes.intermediate_size,
            max_position_embeddings=sizes.context_tokens,
            tie_word_embeddings=True,
            # Wider than the usual 0.02, which suits wide layers and starves narrow ones.
            initializer_range=_VECTOR_SCALE,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=PAD,
        )
    )
    vectors = torch.from_numpy(
        word_vectors(
            rows,
            len(tokenizer),
            size=sizes.hidden_size,
            first_ordinary=len(SPECIAL_TOKENS),
            seed=recipe.seed,
        )
    ).float()
    met = vectors.any(dim=1)
    table = model.model.embed_tokens.weight.data
    table[met] = vectors[met] * _VECTOR_SCALE * sizes.hidden_size**0.5
    return model
