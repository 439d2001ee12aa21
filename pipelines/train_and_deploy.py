"""The graph from labels to a challenger that takes part of the traffic."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.deploy_challenger import deploy_challenger
from components.evaluate_sentiment import evaluate_sentiment
from components.export_onnx import export_onnx
from components.gate_model import gate_model
from components.ingest_labels import ingest_labels
from components.pretrain_encoder import pretrain_encoder
from components.quantize_encoder import quantize_encoder
from components.register_model import register_model
from components.split_dataset import split_dataset
from components.train_sentiment import train_sentiment
from components.validate_labels import validate_labels
from pipelines.placement import Placement, place


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
        ingested = ingest_labels(
            source=labels,
            kind=labels_kind,
            mapping=mapping,
            guideline_version=guideline_version,
            source_digest=labels_digest,
        )
        validated = validate_labels(
            snapshot=ingested.outputs["snapshot"],
            policy=validation_policy,
            inputs=ingested.outputs["Output"],
        )
        split = split_dataset(
            validated=validated.outputs["validated"],
            group_by=group_by,
            validation_share=validation_share,
            test_share=test_share,
            seed=seed,
            inputs=validated.outputs["Output"],
        )
        # Synthetic text alone: a label that changes leaves the encoder as it is.
        encoder = pretrain_encoder(recipe=recipe, checkpoints=checkpoints, inputs="")
        trained = train_sentiment(
            split=split.outputs["split"],
            encoder=encoder.outputs["encoder"],
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            inputs=f"{split.outputs['Output']} {encoder.outputs['Output']}",
        )
        exported = export_onnx(
            model=trained.outputs["model"],
            split=split.outputs["split"],
            threads=threads,
            inputs=trained.outputs["Output"],
        )
        quantized = quantize_encoder(
            exported=exported.outputs["exported"],
            split=split.outputs["split"],
            threads=threads,
            inputs=exported.outputs["Output"],
        )
        evaluated = evaluate_sentiment(
            split=split.outputs["split"],
            exported=exported.outputs["exported"],
            quantized=quantized.outputs["quantized"],
            tracking_uri=tracking_uri,
            model_name=model_name,
            settings=evaluation_settings,
            inputs=f"{exported.outputs['Output']} {quantized.outputs['Output']}",
        )
        gated = gate_model(
            evaluation=evaluated.outputs["evaluation"],
            policy=gate_policy,
            recipe=recipe,
            inputs=evaluated.outputs["Output"],
        )
        registered = register_model(
            validated=validated.outputs["validated"],
            recipe=recipe,
            split=split.outputs["split"],
            exported=exported.outputs["exported"],
            quantized=quantized.outputs["quantized"],
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
        for task in (ingested, validated, split, encoder, trained, exported, quantized, evaluated):
            place(task, placement)
        for task in (gated, registered, deployed):
            place(task, placement)

    return graph
