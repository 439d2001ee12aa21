"""The graph from an exported model to TensorRT engines for one kind of GPU; run per kind.

It takes the folders of an earlier run by path: a classifier's INT8 folder is one of its own, an
embedding model's holds all graphs and is given twice.
"""

from kfp import dsl
from kfp.dsl import Dataset, Model
from kfp.dsl.graph_component import GraphComponent

from components.build_engine import build_engine as build
from pipelines.placement import Placement, place


def build_engine(placement: Placement) -> GraphComponent:
    """The graph, placed on a GPU node; apart from training, as an engine fits one GPU alone."""

    @dsl.pipeline(name="build-engine", description=__doc__)
    def graph(
        model: str,
        quantized: str,
        inputs: str,
        split: str,
        checkpoints: str,
        batch_tokens: int = 8192,
    ) -> None:
        exported, integer = (
            dsl.importer(artifact_uri=uri, artifact_class=Model, reimport=False)
            for uri in (model, quantized)
        )
        texts = dsl.importer(artifact_uri=split, artifact_class=Dataset, reimport=False)
        built = build(
            model=exported.output,
            quantized=integer.output,
            split=texts.output,
            timings=checkpoints,
            batch_tokens=batch_tokens,
            inputs=inputs,
        )
        # Which GPU it runs on is no parameter: the cache would give another GPU's engines.
        built.set_caching_options(False)
        place(built, placement)

    return graph
