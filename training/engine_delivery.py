"""``make build-engine``: TensorRT engines for the GPU at hand, as an artifact or in place.

python -m training.engine_delivery FOLDER

In place they stand in ``tensorrt/`` of the model's folder, where engines by name are looked for
(serving/engines/choice.py). As an artifact they are evidence, and what is copied there.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from data.errors import MatjipError, SettingsError
from data.manifest import (
    Manifest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_manifest,
)
from serving.analyzer import load_analyzer
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import PLAIN, load_embedder
from serving.engines.measuring import sample_windows
from serving.engines.plan_folder import PLAN_FOLDER, PlanSpec
from serving.engines.tensor_rt_library import import_tensorrt, this_sm
from training.engine_plans import build_plans
from training.retrieval_parity import parity_texts

ENGINES_KIND: Final = "tensorrt_engines"
WINDOWS: Final = 512
TIMINGS: Final = Path("var/engines")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def deliver_engines(
    model: Path,
    quantized: Path,
    split: Path,
    out: Path,
    *,
    timings: Path,
    batch_tokens: int = 8192,
) -> Manifest:
    """Build a model's engines as an artifact.

    Args:
        model: folder of a classifier or an embedding model, exported.
        quantized: folder of its graph with Q/DQ; an embedding model's holds both.
        split: folder of kind "split"; lengths are those of its training part, and answers are
            compared on its validation part, which no scale was taken from.
        out: empty folder; gets what serving/engines/plan_folder.py names.
        timings: folder of the builder's timings.
        batch_tokens: padded tokens of the largest batch.

    Raises:
        EngineError: TensorRT or the GPU is missing, or no engine may serve.
        ExportError: a graph is not what TensorRT reads.
        ArtifactError: an input is missing or altered.
    """
    import_tensorrt()  # before minutes of work
    this_sm()
    read_manifest(quantized)
    read_manifest(split, "split")
    texts = [row.review.text for row in read_labelled_reviews(split / "train.jsonl")]
    start_artifact(out)
    spec = _built(
        model,
        out,
        texts,
        validation=split / "validation.jsonl",
        quantized=quantized,
        timings=timings,
        batch_tokens=batch_tokens,
    )
    return write_manifest(
        out, ENGINES_KIND, {"model": read_manifest(model).digest, "engines": spec.model_dump()}
    )


def build_in_place(
    model: Path, *, texts: Sequence[str] | None = None, timings: Path = TIMINGS
) -> PlanSpec:
    """Put engines for the GPU at hand into a model's folder, in place of those that were there.

    Args:
        model: folder of a classifier or an embedding model.
        texts: real ones; made-up reviews of lognormal lengths without.
        timings: folder of the builder's timings.

    Raises:
        MatjipError: as ``deliver_engines``; what was there stays.
    """
    import_tensorrt()  # before minutes of work
    this_sm()
    fresh = model / f".{PLAN_FOLDER}.{os.getpid()}.tmp"
    try:
        spec = _built(model, fresh, texts, timings=timings)
        shutil.rmtree(model / PLAN_FOLDER, ignore_errors=True)
        fresh.rename(model / PLAN_FOLDER)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return spec


def _built(
    model: Path,
    out: Path,
    texts: Sequence[str] | None,
    *,
    validation: Path | None = None,
    **how: Any,
) -> PlanSpec:
    """Engines for the lengths of texts; answers are compared on a validation part where given."""
    embeds = read_manifest(model).kind == EMBEDDING_KIND
    reference: Any = (load_embedder if embeds else load_analyzer)(model, engine=PLAIN)
    max_tokens = reference.spec.max_tokens

    def windows_of(given: Sequence[str]) -> list[list[int]]:
        return [list(window) for window in reference.windows(given).ids]

    return build_plans(
        model,
        out,
        windows=windows_of(texts) if texts else sample_windows(reference, WINDOWS),
        compared=windows_of(parity_texts(validation, max_tokens)) if validation else None,
        reference=reference,
        max_tokens=max_tokens,
        **how,
    )


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Of a classifier or an embedding model.")],
    texts: Annotated[Path | None, typer.Option(help="Real texts, one a line.")] = None,
    timings: Annotated[Path, typer.Option(help="The builder's, kept.")] = TIMINGS,
) -> None:
    """Build a model's TensorRT engines for the GPU at hand, into its folder."""
    console = Console()
    try:
        spec = build_in_place(folder, texts=_lines(texts), timings=timings)
    except MatjipError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print((folder / PLAN_FOLDER / "sweep.md").read_text(encoding="utf-8"), markup=False)
    console.print(f"{spec.chosen} serves: {spec.reason}", markup=False)
    for precision, why in spec.left_out.items():
        console.print(f"{precision} was left out: {why}", markup=False)


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--texts {str(path)!r} cannot be read: {error}; give a UTF-8 file, one text a line"
        ) from error


if __name__ == "__main__":
    app()
