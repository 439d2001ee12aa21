"""The graph from labels and summaries to a language model in INT8 that a gate has judged."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.evaluate_llm import evaluate_llm
from components.gate_llm import gate_llm
from components.merge_llm import merge_llm
from components.quantize_llm import quantize_llm
from components.train_llm import train_llm
from pipelines.placement import Placement, place
from pipelines.stages import labels_to_split, split_to_base


def train_language(placement: Placement) -> GraphComponent:
    """The graph, placed. Digests travel as parameters: a cluster's cache compares only those."""

    @dsl.pipeline(name="train-language", description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        summaries: str,
        summaries_digest: str,
        recipe: str,
        tracking_uri: str,
        checkpoints: str,
        labels_kind: str = "label_studio_file",
        mapping: str = "",
        guideline_version: str = "1.0",
        validation_policy: str = "",
        group_by: str = "restaurant",
        validation_share: float = 0.15,
        test_share: float = 0.25,
        seed: int = 20261101,
        evaluation_settings: str = "",
        gate_policy: str = "",
    ) -> None:
        labelled = labels_to_split(
            placement,
            labels=labels,
            labels_digest=labels_digest,
            kind=labels_kind,
            mapping=mapping,
            guideline_version=guideline_version,
            policy=validation_policy,
            group_by=group_by,
            validation_share=validation_share,
            test_share=test_share,
            seed=seed,
        )
        taught = split_to_base(
            placement,
            labelled.split,
            summaries=summaries,
            summaries_digest=summaries_digest,
            recipe=recipe,
            checkpoints=checkpoints,
        )
        trained = train_llm(
            targets=taught.targets.outputs["targets"],
            base=taught.base.outputs["base"],
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            inputs=taught.base.outputs["Output"],
        )
        merged = merge_llm(
            adapter=trained.outputs["adapter"],
            base=taught.base.outputs["base"],
            inputs=trained.outputs["Output"],
        )
        quantized = quantize_llm(
            merged=merged.outputs["merged"],
            targets=taught.targets.outputs["targets"],
            split=labelled.split.outputs["split"],
            recipe=recipe,
            inputs=merged.outputs["Output"],
        )
        evaluated = evaluate_llm(
            targets=taught.targets.outputs["targets"],
            split=labelled.split.outputs["split"],
            merged=merged.outputs["merged"],
            quantized=quantized.outputs["quantized"],
            settings=evaluation_settings,
            inputs=quantized.outputs["Output"],
        )
        gated = gate_llm(
            evaluation=evaluated.outputs["evaluation"],
            policy=gate_policy,
            inputs=evaluated.outputs["Output"],
        )
        for task in (trained, merged, quantized, evaluated, gated):
            place(task, placement)

    return graph
