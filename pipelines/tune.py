"""The graphs from labels to the best recipe that some trials found, for either kind of model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.pretrain_encoder import pretrain_encoder
from components.tune_model import tune_model
from data.errors import SettingsError
from pipelines.arguments import language_arguments
from pipelines.language_stages import split_to_base
from pipelines.local import Home, new_run, run_graph, source_digest
from pipelines.placement import Placement, local_placement, place
from pipelines.stages import labels_to_split
from training.language_recipe import language_recipe_text
from training.recipe import read_recipe
from training.search_space import read_search_space


def tune_encoder(placement: Placement) -> GraphComponent:
    """Tune the classifier's fine-tuning."""
    return _tune(placement, "encoder")


def tune_language(placement: Placement) -> GraphComponent:
    """Tune the language model's fine-tuning."""
    return _tune(placement, "language")


def run_tuning(
    home: Home,
    kind: str,
    *,
    space: str | None,
    trials: int,
    wall_minutes: float,
    recipe: str | None,
    labels: str | None,
    given: Mapping[str, Any],
) -> Path:
    """Run the graph on this machine; returns the folder of what it found.

    Raises:
        SettingsError: there is no such kind, or an input is not there.
        RunFailedError: a step failed.
    """
    if kind not in TUNED:
        raise SettingsError(f"kind is {kind!r}, known are {sorted(TUNED)}; choose one")
    build, usual = TUNED[kind]
    arguments = language_arguments(home, labels=labels, **given) | {
        "recipe": (read_recipe if kind == "encoder" else language_recipe_text)(recipe or usual),
        "space": read_search_space(space or kind),
        "trials": trials,
        "wall_minutes": wall_minutes,
    }
    del arguments["models"]  # a search serves nothing
    graph = build(local_placement(source_digest()))
    run = run_graph(graph, arguments, new_run(home, f"tune-{kind}", arguments), home)
    return run.artifact("tune-model", "tuned")


def _tune(placement: Placement, kind: str) -> GraphComponent:
    @dsl.pipeline(name=f"tune-{kind}", description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        summaries: str,
        summaries_digest: str,
        recipe: str,
        space: str,
        tracking_uri: str,
        checkpoints: str,
        trials: int = 20,
        wall_minutes: float = 60.0,
        pruner: str = "median",
        labels_kind: str = "label_studio_file",
        mapping: str = "",
        guideline_version: str = "1.0",
        validation_policy: str = "",
        group_by: str = "restaurant",
        validation_share: float = 0.15,
        test_share: float = 0.25,
        seed: int = 20261101,
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
        if kind == "encoder":
            data = labelled.split.outputs["split"]
            made = pretrain_encoder(recipe=recipe, checkpoints=checkpoints, inputs="")
            place(made, placement)
            start = made.outputs["encoder"]
        else:
            taught = split_to_base(
                placement,
                labelled.split,
                summaries=summaries,
                summaries_digest=summaries_digest,
                recipe=recipe,
                checkpoints=checkpoints,
            )
            data, made = taught.targets.outputs["targets"], taught.base
            start = made.outputs["base"]
        tuned = tune_model(
            data=data,
            start=start,
            kind=kind,
            recipe=recipe,
            space=space,
            trials=trials,
            wall_minutes=wall_minutes,
            pruner=pruner,
            seed=seed,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            inputs=f"{labelled.split.outputs['Output']} {made.outputs['Output']}",
        )
        place(tuned, placement)

    return graph


TUNED: Final = {
    "encoder": (tune_encoder, "tiny"),
    "language": (tune_language, "language-tiny"),
}
"""What can be tuned: its graph, and the recipe that the search starts from."""
