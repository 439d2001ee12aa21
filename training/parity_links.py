"""One link of the parity chain: does the second model answer like the first, and if not, where?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from data.examples import Example
from data.manifest import read_manifest
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
    prompt_ids,
)
from training.first_difference import (
    PromptReader,
    first_differing_block,
    first_differing_prompt,
    first_misread_prompt,
)
from training.merge_llm import load_adapted
from training.parity_limits import LinkLimits, broken_answers, broken_scores

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
        rendered: whose token ids and logits are compared.
        asked: what is answered whole.
        max_tokens: of an answer; None leaves what the task allows.
        models: of the stages that are loaded already.
        reader: says how the server reads a prompt; without one the number of tokens is compared.
    """

    folders: Mapping[Stage, Path]
    base: Path | None
    engines: Mapping[Stage, ChatEngine]
    limits: Mapping[str, LinkLimits]
    rendered: list[Rendered]
    asked: list[Example]
    max_tokens: int | None
    models: Mapping[Stage, Any]
    reader: PromptReader | None

    @property
    def examples(self) -> list[Example]:
        """What token ids and logits are compared on."""
        return [each.example for each in self.rendered]


def check_link(chain: Chain, before: Stage, after: Stage) -> LinkReport:
    """Look at one link: token ids, then logits, then answers; stop at what is broken."""
    served = after == "served"
    prompts = len(chain.asked if served else chain.rendered)
    report = LinkReport(name=f"{before} → {after}", prompts=prompts)
    if served:
        limits = chain.limits["served"]
        if chain.reader is not None:
            problem = first_misread_prompt(chain.folders[before], chain.reader, chain.asked)
            if problem is not None:
                return report.model_copy(update={"problem": problem})
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
    answers, problem = _compare_answers(chain, before, after, limits)
    return report.model_copy(update={"answers": answers, "problem": problem})


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


def load_as_trained(adapter: Path, base: Path, merged: Path) -> Any:
    """The adapter over its base, in NF4 where ``merged`` says that it was trained so.

    The way that merging goes is what is checked, so the base is not put back into its own type.

    Raises:
        ArtifactError: a folder is missing or altered.
        ExportError: the adapter's weights and the base's layers do not match.
    """
    through_nf4 = bool(read_language_model(merged).facts.get("through_nf4"))
    return load_adapted(adapter, base, through_nf4=through_nf4, stay_in_nf4=through_nf4).eval()


def _load(chain: Chain, stage: Stage) -> Any:
    if stage in chain.models:
        return chain.models[stage]
    if stage != "adapter":
        return load_scored_model(chain.folders[stage])
    assert chain.base is not None  # noqa: S101  # _links saw to it
    return load_as_trained(chain.folders["adapter"], chain.base, chain.folders["merged"])


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


def _compare_answers(
    chain: Chain, before: Stage, after: Stage, limits: LinkLimits
) -> tuple[AnswerParity | None, str | None]:
    first, second = (
        ask(chain.engines[stage], chain.asked, max_tokens=chain.max_tokens)
        for stage in (before, after)
    )
    problem = (
        first_unanswered(chain.engines[before], chain.asked, first)
        or first_unanswered(chain.engines[after], chain.asked, second)
        or _other_prompt_lengths(chain, chain.folders[before], second)
    )
    if problem is not None:
        return None, problem
    answers = compare_answers(chain.asked, first, second)
    broken = broken_answers(answers, limits)
    return answers, f"{'; '.join(broken)}; first {answers.first_difference}" if broken else None


def _other_prompt_lengths(chain: Chain, folder: Path, answers: list[ChatAnswer]) -> str | None:
    """Which prompt an engine has read as another number of tokens: it has another template."""
    tokenizer = load_tokenizer(folder)
    for example, answer in zip(chain.asked, answers, strict=True):
        wanted = len(prompt_ids(tokenizer, example))
        if answer.prompt_tokens != wanted:
            return (
                f"the prompt of {example.about!r} ({example.task}) has {wanted} tokens and was "
                f"read as {answer.prompt_tokens}; serve it with the folder's own chat template"
            )
    return None
