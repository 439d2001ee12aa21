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
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from transformers import AutoConfig

from data.artifacts import TARGETS_KIND
from data.errors import ExportError, SettingsError
from data.examples import Example, read_examples
from data.manifest import Manifest, read_manifest, start_artifact, write_json, write_manifest
from serving.engines.chat import ChatAnswer, ChatEngine
from serving.language_folder import read_language_model
from training.answer_parity import AnswerParity, ask, compare_answers, first_unanswered
from training.answer_scores import (
    Agreement,
    Comparison,
    Rendered,
    answer_logits,
    load_scored_model,
    load_tokenizer,
    pick_examples,
    prompt_ids,
    render_examples,
)
from training.first_difference import first_differing_block, first_differing_prompt
from training.merge_llm import load_adapted
from training.parity_limits import LIMITS, LinkLimits, broken_answers, broken_scores

PARITY_KIND: Final = "language_parity"
PARITY_NAME: Final = "parity.json"
Stage = Literal["adapter", "merged", "quantized", "served"]
STAGES: Final[tuple[Stage, ...]] = ("adapter", "merged", "quantized", "served")


class LinkReport(BaseModel):
    """One link, as far as it was looked at.

    Attributes:
        name: from which stage to which.
        prompts: whose token ids were compared.
        scores: None for the served link, and where the token ids differ already.
        answers: None where no engines were given for both stages.
        problem: why the link is broken; None where it holds.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    prompts: int
    scores: Agreement | None = None
    answers: AnswerParity | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Chain:
    """The stages that there are, and what they are compared on.

    Attributes:
        folders: of the stages that have one.
        base: of the adapter.
        engines: of the stages whose whole answers are compared.
        limits: by format.
    """

    folders: Mapping[Stage, Path]
    base: Path | None
    engines: Mapping[Stage, ChatEngine]
    limits: Mapping[str, LinkLimits]
    rendered: list[Rendered]

    @property
    def examples(self) -> list[Example]:
        """What is asked."""
        return [each.example for each in self.rendered]


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

    Raises:
        ExportError: a link is broken; ``parity.json`` is written all the same.
        SettingsError: there is no link to check.
        ArtifactError: a folder is missing or altered.
    """
    engines = engines or {}
    given = {"adapter": adapter, "merged": merged, "quantized": quantized}
    folders: dict[Stage, Path] = {
        stage: folder for stage in STAGES if (folder := given.get(stage)) is not None
    }
    links = _links(folders, base, engines)
    source = read_manifest(targets, TARGETS_KIND)
    picked = render_examples(
        load_tokenizer(next(iter(folders.values()))),
        pick_examples(read_examples(targets / "validation.jsonl"), seed),
        count=examples,
        max_tokens=int(AutoConfig.from_pretrained(merged).max_position_embeddings),
    )
    chain = Chain(folders, base, engines, LIMITS | dict(limits or {}), picked.rendered)
    start_artifact(out)
    reports: list[LinkReport] = []
    for before, after in links:
        reports.append(check_link(chain, before, after))
        write_json(out / PARITY_NAME, [each.model_dump() for each in reports])
        if reports[-1].problem is not None:
            raise ExportError(f"the link {reports[-1].name} is broken: {reports[-1].problem}")
    facts = {
        "links": [each.model_dump() for each in reports],
        "targets_digest": source.digest,
        "stages": {stage: read_manifest(folder).digest for stage, folder in folders.items()},
    }
    return write_manifest(out, PARITY_KIND, facts)


def check_link(chain: Chain, before: Stage, after: Stage) -> LinkReport:
    """Look at one link: token ids, then logits, then answers; stop at what is broken."""
    report = LinkReport(name=f"{before} → {after}", prompts=len(chain.rendered))
    if after == "served":
        limits = chain.limits["served"]
    else:
        limits = chain.limits[_format(chain.folders[after])]
        problem = _other_lineage(chain, before, after) or first_differing_prompt(
            chain.folders[before], chain.folders[after], chain.examples
        )
        if problem is not None:
            return report.model_copy(update={"problem": problem})
        scores, problem = _compare_scores(chain, before, after, limits)
        report = report.model_copy(update={"scores": scores, "problem": problem})
        if problem is not None:
            return report
    if before not in chain.engines or after not in chain.engines:
        return report
    first, second = (ask(chain.engines[stage], chain.examples) for stage in (before, after))
    problem = (
        first_unanswered(chain.engines[before], chain.examples, first)
        or first_unanswered(chain.engines[after], chain.examples, second)
        or _other_prompt_lengths(chain, chain.folders[before], second)
    )
    if problem is not None:
        return report.model_copy(update={"problem": problem})
    answers = compare_answers(chain.examples, first, second)
    if broken := broken_answers(answers, limits):
        problem = f"{'; '.join(broken)}; first {answers.first_difference}"
    return report.model_copy(update={"answers": answers, "problem": problem})


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


def _other_lineage(chain: Chain, before: Stage, after: Stage) -> str | None:
    """Whether the second model says that it was made of another first."""
    made = read_language_model(chain.folders[after]).facts
    if before == "adapter":
        given = {"adapter_digest": chain.folders[before], "base_digest": chain.base}
    else:
        given = {"parent_digest": chain.folders[before]}
    for fact, folder in given.items():
        digest = read_manifest(folder).digest if folder else None
        if made.get(fact) != digest:
            return (
                f"{str(chain.folders[after])!r} was made with {fact}={made.get(fact)!r}, "
                f"{str(folder)!r} is {digest!r}"
            )
    return None


def _format(folder: Path) -> str:
    return str(read_language_model(folder).facts["format"])


def _load(chain: Chain, stage: Stage) -> Any:
    if stage != "adapter":
        return load_scored_model(chain.folders[stage])
    assert chain.base is not None  # noqa: S101  # _links saw to it
    through_nf4 = bool(read_language_model(chain.folders["merged"]).facts.get("through_nf4"))
    # In NF4 itself where it was trained so: the way that merging goes is what is checked.
    return load_adapted(
        chain.folders["adapter"], chain.base, through_nf4=through_nf4, stay_in_nf4=through_nf4
    )


def _compare_scores(
    chain: Chain, before: Stage, after: Stage, limits: LinkLimits
) -> tuple[Agreement, str | None]:
    first, second = _load(chain, before), _load(chain, after)
    comparison = Comparison()
    for each in chain.rendered:
        comparison.add(each, answer_logits(first, each), answer_logits(second, each))
    found = comparison.agreement()
    broken = broken_scores(found, limits)
    if not broken or comparison.worst is None:
        return found, None
    worst = comparison.worst[1]
    where = first_differing_block(first, second, worst)
    about = f"{worst.example.about!r} ({worst.example.task})"
    return found, f"logits differ ({'; '.join(broken)}), most at {about}: {where}"


def _other_prompt_lengths(chain: Chain, folder: Path, answers: list[ChatAnswer]) -> str | None:
    """Which prompt an engine has read as another number of tokens: it has another template."""
    tokenizer = load_tokenizer(folder)
    for example, answer in zip(chain.examples, answers, strict=True):
        wanted = len(prompt_ids(tokenizer, example))
        if answer.prompt_tokens != wanted:
            return (
                f"the prompt of {example.about!r} ({example.task}) has {wanted} tokens and was "
                f"read as {answer.prompt_tokens}; serve it with the folder's own chat template"
            )
    return None
