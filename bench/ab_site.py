"""Small classifiers made on the spot, and a gateway that serves them on a core of its own.

Their weights are random and they are tiny: what is measured is what stands around a model.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.gateway_process import RunningGateway, running
from data.contract import CONTRACT_VERSION
from data.manifest import read_manifest, write_manifest
from serving.deployment import Arm, Deployment
from serving.model_folder import MODEL_KIND, ModelSpec, write_spec

GATEWAY_CORE: Final = 0
CLIENT_CORE: Final = 1
TEXTS: Final = ("국물이 정말 맛있어요", "별로 맛없어요", "사장님 친절 존맛", "대기 길어요 고기 굿")
_WORDS: Final = ("국물이", "정말", "맛있어요", "별로", "맛없어요", "사장님", "친절", "존맛", "대기")
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_classifier(folder: Path, seed: int) -> Path:
    """A model folder with one small layer; another seed is another model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ElectraConfig

    from serving.encoder import MultiTaskElectra, save_encoder

    folder.mkdir(parents=True)
    numbers = {token: number for number, token in enumerate((*_SPECIAL, *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = ElectraConfig(
        vocab_size=len(numbers),
        embedding_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    save_encoder(MultiTaskElectra(config).eval(), folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = {"contract_version": CONTRACT_VERSION, "format": "torch-fp32", "architecture": "electra"}
    write_spec(folder, ModelSpec.model_validate(spec | {"max_tokens": 32, "overlap_tokens": 8}))
    write_manifest(folder, MODEL_KIND, {"seed": seed})
    return folder


def two_arms(folder: Path, experiment_id: str) -> Deployment:
    """Control and challenger, half each, their models in a folder."""
    arms = []
    for seed, name in enumerate(("control", "challenger"), start=1):
        model = write_classifier(folder / name, seed)
        arms.append(
            Arm(
                name=name,
                model_name="bench",
                version=str(seed),
                folder=model.resolve(),
                manifest_digest=read_manifest(model).digest,
                evidence_id="bench",
                share=0.5,
            )
        )
    return Deployment(
        experiment_id=experiment_id,
        salt="a salt for measurements",
        arms=tuple(arms),
        created_at=datetime.now(UTC),
    )


@contextlib.contextmanager
def serving(
    command: Sequence[str], work: Path, settings: Mapping[str, str]
) -> Iterator[RunningGateway]:
    """A ready gateway, ended on the way out.

    Args:
        command: Python's arguments; the port comes by setting.
        work: for its log.
        settings: environment variables beside those that every measurement has.

    Raises:
        RuntimeError: it did not get ready.
    """
    ours = {"MATJIP_ENGINE": "plain", "MATJIP_MAX_WAIT_MS": "0"}
    with running(command, work, ours | dict(settings), core=GATEWAY_CORE) as gateway:
        yield gateway
