"""The graph from labels to what serves: classifier and language model, with challengers."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from pipelines.encoder_stages import split_to_challenger
from pipelines.language_stages import split_to_language_model
from pipelines.placement import Placement
from pipelines.stages import labels_to_split


def train_and_deploy(placement: Placement) -> GraphComponent:
    """The graph, placed. Digests travel as parameters: a cluster's cache compares only those."""

    @dsl.pipeline(name="train-and-deploy", description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        recipe: str,
        language_recipe: str,
        tracking_uri: str,
        checkpoints: str,
        models: str,
        summaries: str = "",
        summaries_digest: str = "",
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
        language_parity_settings: str = "",
        language_evaluation_settings: str = "",
        language_gate_policy: str = "",
        language_model_name: str = "matjip-language",
        language_base_url: str = "",
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
        split_to_challenger(
            placement,
            labelled,
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            threads=threads,
            model_name=model_name,
            evaluation_settings=evaluation_settings,
            gate_policy=gate_policy,
            challenger_share=challenger_share,
            models=models,
        )
        split_to_language_model(
            placement,
            labelled,
            summaries=summaries,
            summaries_digest=summaries_digest,
            recipe=language_recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            model_name=language_model_name,
            parity_settings=language_parity_settings,
            evaluation_settings=language_evaluation_settings,
            gate_policy=language_gate_policy,
            challenger_share=challenger_share,
            models=models,
            base_url=language_base_url,
        )

    return graph
