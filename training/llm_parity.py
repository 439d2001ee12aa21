"""The parity chain: does each model on the way to serving answer like the one it was made from?

adapter → merged → quantised → served. Every link is looked at in the order in which an error shows
itself most plainly: first the token ids of the prompts, then the logits of held-out answers, then
whole answers and their score. A chain that breaks stops there and says where: the link, what
differs first, and in which layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig

from data.artifacts import TARGETS_KIND
from data.errors import DataUnfitError, ExportError, SettingsError
from data.examples import Example, read_examples
from data.manifest import Manifest, read_manifest, start_artifact, write_json, write_manifest
from data.prompts import Task
from serving.engines.chat import ChatEngine
from training.answer_scores import Rendered, load_tokenizer, pick_examples, render_examples
from training.first_difference import PromptReader
from training.parity_limits import LIMITS, LinkLimits
from training.parity_links import STAGES, Chain, LinkReport, Stage, check_link

PARITY_KIND: Final = "language_parity"
PARITY_NAME: Final = "parity.json"
NOT_SERVED: Final = (
    "no server was given: in this process the engine that answers for the quantised model would "
    "be compared with itself"
)


@dataclass(frozen=True)
class Asking:
    """Which prompts are answered whole: decoding takes far longer than scoring.

    Attributes:
        count: most examples.
        task: of all of them.
        max_tokens: of an answer; an example whose right answer is longer is not asked.
    """

    count: int
    task: Task
    max_tokens: int


def check_parity_chain(
    out: Path,
    *,
    targets: Path,
    merged: Path,
    adapter: Path | None = None,
    base: Path | None = None,
    quantized: Path | None = None,
    engines: Mapping[Stage, ChatEngine] | None = None,
    limits: Mapping[str, LinkLimits] | None = None,
    examples: int = 64,
    seed: int = 0,
    asking: Asking | None = None,
    models: Mapping[Stage, Any] | None = None,
    reader: PromptReader | None = None,
) -> Manifest:
    """Check every link between the stages that are given, in order, up to the first broken one.

    Args:
        out: folder for ``parity.json``; its manifest's facts say the same.
        targets: artifact of kind targets; its validation part is what all are compared on.
        merged: artifact of kind language_model.
        adapter: what was merged; with ``base``.
        base: what it was trained over.
        quantized: what was made of ``merged``.
        engines: a stage's engine; answers are compared where a link's two stages have one.
            ``served`` is vLLM's, and is compared with ``quantized``, or with ``merged``.
        limits: in place of those of ``LIMITS``, by format.
        examples: how many to compare on.
        seed: of their choice.
        asking: which are answered whole; None, all that are compared.
        models: stages' models that are loaded already, as ``load_scored_model`` loads them.
        reader: of ``served``: its token ids are compared before any answer.

    Raises:
        ExportError: a link is broken; ``parity.json`` is written all the same.
        SettingsError: there is no link to check.
        DataUnfitError: no example is short enough.
        ArtifactError: a folder is missing or altered.
    """
    engines = engines or {}
    given = {"adapter": adapter, "merged": merged, "quantized": quantized}
    folders: dict[Stage, Path] = {
        stage: folder for stage in STAGES if (folder := given.get(stage)) is not None
    }
    links = _links(folders, base, engines)
    source = read_manifest(targets, TARGETS_KIND)
    drawn = pick_examples(read_examples(targets / "validation.jsonl"), seed)
    rendered, asked = _pick(next(iter(folders.values())), merged, drawn, examples, asking)
    chain = Chain(
        folders=folders,
        base=base,
        engines=engines,
        limits=LIMITS | dict(limits or {}),
        rendered=rendered,
        asked=asked,
        max_tokens=asking.max_tokens if asking else None,
        models=models or {},
        reader=reader,
    )
    start_artifact(out)
    facts = _check_links(out, chain, links)
    facts["targets_digest"] = source.digest
    facts["stages"] = {stage: read_manifest(folder).digest for stage, folder in folders.items()}
    return write_manifest(out, PARITY_KIND, facts)


def _check_links(out: Path, chain: Chain, links: list[tuple[Stage, Stage]]) -> dict[str, Any]:
    """What ``parity.json`` says; it is written anew after every link."""
    reports: list[LinkReport] = []
    said: dict[str, Any] = {
        "engines": {stage: engine.name for stage, engine in chain.engines.items()},
        "left_out": {} if "served" in chain.engines else {"served": NOT_SERVED},
    }
    for before, after in links:
        reports.append(check_link(chain, before, after))
        said["links"] = [each.model_dump() for each in reports]
        write_json(out / PARITY_NAME, said)
        if reports[-1].problem is not None:
            raise ExportError(f"the link {reports[-1].name} is broken: {reports[-1].problem}")
    return said


def _pick(
    first: Path, merged: Path, drawn: list[Example], examples: int, asking: Asking | None
) -> tuple[list[Rendered], list[Example]]:
    """What is scored, and what is asked."""
    tokenizer = load_tokenizer(first)
    context = int(AutoConfig.from_pretrained(merged).max_position_embeddings)
    rendered = render_examples(tokenizer, drawn, count=examples, max_tokens=context).rendered
    if asking is None:
        return rendered, [each.example for each in rendered]
    own = [each for each in drawn if each.task == asking.task]
    fitting = render_examples(tokenizer, own, count=len(own), max_tokens=context).rendered
    short = [each.example for each in fitting if len(each.answer) <= asking.max_tokens]
    if not short:
        raise DataUnfitError(
            f"none of {len(own)!r} examples of {asking.task!r} has an answer of at most "
            f"{asking.max_tokens!r} tokens; raise that"
        )
    return rendered, short[: asking.count]


def _links(
    folders: Mapping[Stage, Path], base: Path | None, engines: Mapping[Stage, ChatEngine]
) -> list[tuple[Stage, Stage]]:
    stages = [
        stage for stage in STAGES if stage in folders or (stage == "served" and stage in engines)
    ]
    links = list(pairwise(stages))
    if not links or ("adapter" in folders and base is None):
        raise SettingsError(
            f"there is no chain in {stages!r} with base={base!r}; give an adapter with its base, "
            "a quantised model, or an engine that serves"
        )
    if "served" in engines and links[-1][0] not in engines:
        raise SettingsError(
            f"what is served is compared with {links[-1][0]!r}, which has no engine; "
            "give a TransformersChatEngine of its folder"
        )
    return links
