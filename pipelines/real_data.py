"""`make real-data`: the same components on real Korean reviews, changed only by configuration.

Two graphs: film reviews with stars (sentiment and intensity; trained and reported on separate
files), and the gold corpus's aspects on restaurant reviews that it never saw. The data stay where
they are; nothing of them enters the project.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from rich.console import Console
from rich.table import Table

from components.evaluate_held_out import evaluate_held_out
from data.errors import SettingsError
from data.manifest import file_sha256, write_json
from pipelines.arguments import gold_labels, tracking_uri
from pipelines.encoder_stages import split_to_models
from pipelines.local import Home, RunRecord, new_run, run_graph, source_digest
from pipelines.placement import Placement, local_placement, place
from pipelines.stages import labels_to_split, labels_to_validated
from training.recipe import read_recipe

STARS: Final = """
text: document
review_id: id
rating: rating
rating_to_intensity: {1: -2, 2: -2, 3: -1, 4: -1, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1, 10: 2}
quoting: none
"""
RESTAURANT_ASPECTS: Final = """
text: sentence
aspects: aspect4
aspects_left_out: [other]
quoting: none
"""
# Published files are taken as they are: short texts repeat, and every row is reported on.
AS_THEY_ARE: Final = """
exact_duplicates: keep
near_duplicate_threshold: 1.0
label_errors: false
quarantine_contradictions: []
"""
FIGURES: Final = {
    "two_class_accuracy": "stars",
    "three_class_macro_f1": "stars",
    "intensity_mae": "stars",
    "aspect_macro_f1": "aspects",
}


def train_and_report(placement: Placement, name: str, *, corpus_from_split: bool) -> GraphComponent:
    """Train on one source of labels, report on another."""

    @dsl.pipeline(name=name, description=__doc__)
    def graph(
        labels: str,
        labels_digest: str,
        labels_kind: str,
        mapping: str,
        policy: str,
        held_out: str,
        held_out_digest: str,
        held_out_mapping: str,
        recipe: str,
        tracking_uri: str,
        checkpoints: str,
        group_by: str,
        validation_share: float,
        threads: int = 2,
        seed: int = 20261101,
        evaluation_settings: str = "",
    ) -> None:
        labelled = labels_to_split(
            placement,
            labels=labels,
            labels_digest=labels_digest,
            kind=labels_kind,
            mapping=mapping,
            guideline_version="1.0",
            policy=policy,
            group_by=group_by,
            validation_share=validation_share,
            test_share=0.0,
            seed=seed,
        )
        made = split_to_models(
            placement,
            labelled.split,
            recipe=recipe,
            checkpoints=checkpoints,
            tracking_uri=tracking_uri,
            threads=threads,
            corpus_from_split=corpus_from_split,
        )
        reported = labels_to_validated(
            placement,
            labels=held_out,
            labels_digest=held_out_digest,
            kind="table",
            mapping=held_out_mapping,
            guideline_version="1.0",
            policy=AS_THEY_ARE,
        )
        evaluated = evaluate_held_out(
            split=labelled.split.outputs["split"],
            reviews=reported.outputs["validated"],
            model=made.quantized.outputs["quantized"],
            parent=made.exported.outputs["exported"],
            settings=evaluation_settings,
            inputs=f"{made.quantized.outputs['Output']} {reported.outputs['Output']}",
        )
        place(evaluated, placement)

    return graph


def _data_folder(folder: str | None) -> Path:
    path = Path(folder) if folder else Path("..") / "shared" / "data"
    if not (path / "nsmc_stars_train.tsv.gz").is_file():
        raise SettingsError(
            f"no real data at {str(path)!r}: set MATJIP_REAL_DATA to the folder that holds "
            "nsmc_stars_train.tsv.gz, nsmc_stars_dev.tsv.gz and mabsa_ko_restaurant_dev.tsv.gz"
        )
    return path.resolve()


def _arguments(home: Home, labels: Path, held_out: Path, **more: Any) -> dict[str, Any]:
    return {
        "labels": str(labels),
        "labels_digest": file_sha256(labels),
        "held_out": str(held_out),
        "held_out_digest": file_sha256(held_out),
        "tracking_uri": tracking_uri(home),
        "checkpoints": str(home.folder("checkpoints")),
        **more,
    }


def _run(home: Home, name: str, arguments: dict[str, Any], *, corpus_from_split: bool) -> RunRecord:
    graph = train_and_report(
        local_placement(source_digest()), name, corpus_from_split=corpus_from_split
    )
    return run_graph(graph, arguments, new_run(home, name, arguments), home)


def _report(runs: dict[str, RunRecord], wall_s: float) -> dict[str, Any]:
    measured = {
        name: json.loads(
            (run.artifact("evaluate-held-out", "evaluation") / "metrics.json").read_bytes()
        )
        for name, run in runs.items()
    }
    summary: dict[str, Any] = {"wall_s": round(wall_s, 1), "rows": {}}
    for figure, source in FIGURES.items():
        models = measured[source]["metrics"]
        ours = models["candidate"][figure]
        summary[figure] = {
            **{key: ours[key] for key in ("value", "low", "high")},
            "tfidf": models["tfidf"][figure]["value"],
            "fp32": models["parent"][figure]["value"],
        }
        summary["rows"][source] = measured[source]["n"]
    return summary


def run_real_data(home: Home, *, folder: str | None) -> dict[str, Any]:
    """Train and report; writes var/real-data/summary.json.

    Raises:
        SettingsError: the data are not there.
        RunFailedError: a step failed.
    """
    data, start, console = _data_folder(folder), time.monotonic(), Console()
    stars = _arguments(
        home,
        data / "nsmc_stars_train.tsv.gz",
        data / "nsmc_stars_dev.tsv.gz",
        labels_kind="table",
        mapping=STARS,
        policy=AS_THEY_ARE,
        held_out_mapping=STARS,
        recipe=read_recipe("film-stars"),
        group_by="none",
        validation_share=0.02,
    )
    aspects = _arguments(
        home,
        gold_labels(),
        data / "mabsa_ko_restaurant_dev.tsv.gz",
        labels_kind="label_studio_file",
        mapping="",
        policy="",
        held_out_mapping=RESTAURANT_ASPECTS,
        recipe=read_recipe("tiny"),
        group_by="restaurant",
        validation_share=0.15,
    )
    runs = {
        "stars": _run(home, "film-stars", stars, corpus_from_split=True),
        "aspects": _run(home, "restaurant-aspects", aspects, corpus_from_split=False),
    }
    summary = _report(runs, time.monotonic() - start)
    path = home.folder("real-data") / "summary.json"
    write_json(path, summary)
    table = Table("figure", "INT8 model", "interval", "fp32", "TF-IDF", title="On real data")
    for figure in FIGURES:
        row = summary[figure]
        table.add_row(
            figure,
            *(f"{row['value']:.4f}", f"{row['low']:.4f} … {row['high']:.4f}"),
            *(f"{row['fp32']:.4f}", f"{row['tfidf']:.4f}"),
        )
    console.print(table)
    console.print(f"{summary['wall_s']} s. {path}", soft_wrap=True)
    return summary
