"""The graph from an exported model to TensorRT engines for one kind of GPU; run per kind."""

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
        model_digest: str,
        split: str,
        checkpoints: str,
        batch_tokens: int = 8192,
    ) -> None:
        exported = dsl.importer(artifact_uri=model, artifact_class=Model, reimport=False)
        texts = dsl.importer(artifact_uri=split, artifact_class=Dataset, reimport=False)
        built = build(
            model=exported.output,
            split=texts.output,
            timings=checkpoints,
            batch_tokens=batch_tokens,
            inputs=model_digest,
        )
        place(built, placement)

    return graph
