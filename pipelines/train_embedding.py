"""The graph from labels to an embedding model that serves."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from pipelines.embedding_stages import split_to_embedding
from pipelines.placement import Placement
from pipelines.stages import labels_to_split


def train_embedding(placement: Placement) -> GraphComponent:
    """The graph, placed. Digests travel as parameters: a cluster's cache compares only those."""

    @dsl.pipeline(name="train-embedding", description=__doc__)
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
        recipe_files_digest: str = "",
        evaluation_files_digest: str = "",
        model_name: str = "matjip-embedding",
        threads: int = 2,
        max_batch: int = 32,
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
        split_to_embedding(
            placement,
            labelled,
            recipe=recipe,
            recipe_files_digest=recipe_files_digest,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            threads=threads,
            max_batch=max_batch,
            model_name=model_name,
            evaluation_settings=evaluation_settings,
            evaluation_files_digest=evaluation_files_digest,
            models=models,
        )

    return graph
