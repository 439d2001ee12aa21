"""The graph from labels and summaries to a language model in INT8 that serves."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from pipelines.language_stages import split_to_language_model
from pipelines.placement import Placement
from pipelines.stages import labels_to_split


def train_language(placement: Placement) -> GraphComponent:
    """The graph, placed. Digests travel as parameters: a cluster's cache compares only those."""

    @dsl.pipeline(name="train-language", description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        recipe: str,
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
        parity_settings: str = "",
        evaluation_settings: str = "",
        gate_policy: str = "",
        model_name: str = "matjip-language",
        challenger_share: float = 0.5,
        base_url: str = "",
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
        split_to_language_model(
            placement,
            labelled,
            summaries=summaries,
            summaries_digest=summaries_digest,
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            model_name=model_name,
            parity_settings=parity_settings,
            evaluation_settings=evaluation_settings,
            gate_policy=gate_policy,
            challenger_share=challenger_share,
            models=models,
            base_url=base_url,
        )

    return graph
