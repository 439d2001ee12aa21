"""Makes tiny sentence-transformers folders, random weights, by sentence-transformers itself."""

from pathlib import Path
from typing import Any

WORDS = ["맛", "##있", "##어요", "별", "##로", "불", "##친절", "친절", "국물", "이", "정말", "대기"]


def _tokenizer(style: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special = bert if style != "roberta" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    opening, closing, padding, unknown, mask = (
        (special[i] for i in (2, 3, 0, 1, 4))
        if style != "roberta"
        else (special[i] for i in (0, 2, 1, 3, 4))
    )
    vocabulary = {t: i for i, t in enumerate([*special, *WORDS, *(f"w{i}" for i in range(60))])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A {closing}",
        special_tokens=[(opening, vocabulary[opening]), (closing, vocabulary[closing])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=opening,
        sep_token=closing,
        pad_token=padding,
        unk_token=unknown,
        mask_token=mask,
    )


def write_sentence_transformer(  # every part of such a folder can differ
    folder: Path,
    style: str = "bert",
    *,
    pooling: str = "mean",
    dense: bool = False,
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    default_prompt: str | None = None,
    max_tokens: int = 24,
) -> Path:
    """A tiny model of one architecture: bert, roberta or electra."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(3)
    tokenizer = _tokenizer(style)
    config = AutoConfig.for_model(
        style,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    plain = folder.with_name(f"{folder.name}-plain")
    AutoModel.from_config(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules: list[Any] = [Transformer(str(plain), max_seq_length=max_tokens), Pooling(32, pooling)]
    modules += [Dense(32, 20)] if dense else []
    modules += [Normalize()] if normalize else []
    model = SentenceTransformer(
        modules=modules, device="cpu", prompts=prompts, default_prompt_name=default_prompt
    )
    model.save(str(folder))
    return folder
