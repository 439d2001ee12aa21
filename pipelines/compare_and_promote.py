"""The graph from served traffic to an alias that moves, or stays; run on a schedule."""

from kfp import dsl
from kfp.dsl import Dataset
from kfp.dsl.graph_component import GraphComponent

from components.compare_arms import compare_arms
from components.promote_model import promote_model
from pipelines.placement import Placement, place


def compare_and_promote(placement: Placement) -> GraphComponent:
    """The graph, placed."""

    @dsl.pipeline(name="compare-and-promote", description=__doc__)
    def graph(
        deployment: str,
        store_url: str,
        tracking_uri: str,
        watermark: str,
        rule: str = "",
        traffic: str = "live traffic",
    ) -> None:
        deployed = dsl.importer(artifact_uri=deployment, artifact_class=Dataset, reimport=False)
        compared = compare_arms(
            deployment=deployed.output,
            store_url=store_url,
            rule=rule,
            traffic=traffic,
            watermark=watermark,
        )
        promoted = promote_model(
            comparison=compared.outputs["comparison"],
            deployment=deployed.output,
            tracking_uri=tracking_uri,
            store_url=store_url,
            inputs=compared.outputs["Output"],
        )
        for task in (compared, promoted):
            place(task, placement)

    return graph
