"""The graph from a classifier's exported folders to a TensorRT engine, on a node with a GPU."""

from kfp import dsl
from kfp.dsl import Dataset, Model
from kfp.dsl.graph_component import GraphComponent

from components.build_engine import build_engine
from pipelines.placement import Placement, place


def build_engine_graph(placement: Placement) -> GraphComponent:
    """The graph, placed; it takes the folders of an earlier run by path."""

    @dsl.pipeline(name="build-engine", description=__doc__)
    def graph(
        exported: str,
        quantized: str,
        split: str,
        inputs: str,
        token_budget: int = 1024,
        timing_cache: str = "",
    ) -> None:
        model, integer = (
            dsl.importer(artifact_uri=uri, artifact_class=Model, reimport=False)
            for uri in (exported, quantized)
        )
        data = dsl.importer(artifact_uri=split, artifact_class=Dataset, reimport=False)
        built = build_engine(
            exported=model.output,
            quantized=integer.output,
            split=data.output,
            token_budget=token_budget,
            timing_cache=timing_cache,
            inputs=inputs,
        )
        place(built, placement)

    return graph
