"""The graph from labels to a challenger that takes part of the traffic."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.deploy_challenger import deploy_challenger
from components.evaluate_sentiment import evaluate_sentiment
from components.gate_model import gate_model
from components.register_model import register_model
from pipelines.placement import Placement, place
from pipelines.stages import labels_to_split, split_to_models


def train_and_deploy(placement: Placement) -> GraphComponent:
    """The graph, placed. Digests travel as parameters: a cluster's cache compares only those."""

    @dsl.pipeline(name="train-and-deploy", description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        recipe: str,
        tracking_uri: str,
        checkpoints: str,
        models: str,
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
        model_name: str = "matjip-sentiment",
        challenger_share: float = 0.5,
        threads: int = 2,
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
        made = split_to_models(
            placement,
            labelled.split,
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            threads=threads,
            corpus_from_split=False,
        )
        evaluated = evaluate_sentiment(
            split=labelled.split.outputs["split"],
            exported=made.exported.outputs["exported"],
            quantized=made.quantized.outputs["quantized"],
            tracking_uri=tracking_uri,
            model_name=model_name,
            settings=evaluation_settings,
            inputs=f"{made.exported.outputs['Output']} {made.quantized.outputs['Output']}",
        )
        gated = gate_model(
            evaluation=evaluated.outputs["evaluation"],
            policy=gate_policy,
            recipe=recipe,
            inputs=evaluated.outputs["Output"],
        )
        registered = register_model(
            validated=labelled.validated.outputs["validated"],
            recipe=recipe,
            split=labelled.split.outputs["split"],
            exported=made.exported.outputs["exported"],
            quantized=made.quantized.outputs["quantized"],
            evaluation=evaluated.outputs["evaluation"],
            gate=gated.outputs["gate"],
            tracking_uri=tracking_uri,
            model_name=model_name,
            inputs=gated.outputs["Output"],
        )
        deployed = deploy_challenger(
            registration=registered.outputs["registration"],
            tracking_uri=tracking_uri,
            model_name=model_name,
            challenger_share=challenger_share,
            models=models,
            inputs=registered.outputs["Output"],
        )
        for task in (evaluated, gated, registered, deployed):
            place(task, placement)

    return graph
