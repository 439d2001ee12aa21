"""``make tune-engine``: measure the engines a model's folder can run on here, and keep the best.

python -m serving.engines.tune FOLDER
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from data.errors import EngineError, MatjipError, SettingsError
from data.manifest import Manifest, canonical_digest, file_sha256, read_manifest
from serving.analyzer import load_analyzer
from serving.batching.calibrate import Calibration, CalibrationRequest, calibrate
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import (
    BASELINE,
    ENGINES,
    PLAIN,
    engines_of,
    load_embedder,
    make_engine,
    plain_engine,
    unfit_engines,
)
from serving.engines.hardware import this_hardware
from serving.engines.judging import judge, table
from serving.engines.measuring import measure_engines, sample_windows
from serving.engines.model_files import read_model_files
from serving.engines.tuned import (
    EngineChoice,
    MeasuredEngine,
    QualityBudget,
    choice_path,
    costs_path,
    engines_home,
    outdated,
    read_choice,
    write_choice,
)
from serving.model_folder import MODEL_KIND, ModelSpec, read_spec
from serving.text_model import TextModel

WINDOWS: Final = 256
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def tune_engine(
    folder: Path,
    *,
    home: Path,
    budget: QualityBudget | None = None,
    texts: Sequence[str] | None = None,
    windows: int = WINDOWS,
    rounds: int = 2,
    threads: int = 1,
    again: bool = False,
    costs: bool = True,
    console: Console | None = None,
) -> EngineChoice:
    """Choose a folder's engine by measuring, or take the choice that was made before.

    A choice holds while no engine joined those that it was made among.

    Args:
        folder: of a classifier or an embedding model.
        home: folder of the choices.
        budget: of quality; the defaults of ``QualityBudget`` without.
        texts: to measure on; made-up reviews of lognormal lengths without.
        windows: how many are made up.
        rounds: how often each batch is run by each engine.
        threads: compute threads of each engine.
        again: measure although there is a choice.
        costs: also fit the cost model of the chosen engine.
        console: where progress is shown; nowhere without.

    Raises:
        ArtifactError: the folder is not whole, or no model.
        EngineError: no engine runs within the budget.
    """
    manifest, hardware = read_manifest(folder), this_hardware()
    budget = budget or QualityBudget()
    path = choice_path(home, manifest.digest, hardware)
    model = _plain_model(folder)
    sample = (
        [list(window) for window in model.windows(texts).ids]
        if texts
        else sample_windows(model, windows)
    )
    reference = reference_engine(folder)
    candidates = _candidates(folder, manifest, reference)
    asked = (budget, threads, canonical_digest(sample))
    kept = None if again else read_choice(path, manifest.digest, hardware)
    if kept and (kept.budget, kept.threads, kept.sample_digest) == asked:
        reason = outdated(kept, candidates)
        if reason is None:
            if costs and not costs_path(path).is_file():
                _keep_costs(folder, kept, sample, path, console)
            return kept
        _say(console, f"measured again: {reason}")
    measured = _measure(
        folder,
        list(candidates),
        sample,
        model.pad_id,
        reference=reference,
        spec=read_spec(folder) if manifest.kind == MODEL_KIND else None,
        rounds=rounds,
        threads=threads,
        console=console,
    )
    engine, judged = judge(measured, budget)
    choice = EngineChoice(
        model_digest=manifest.digest,
        hardware=hardware,
        budget=budget,
        reference=reference,
        engine=engine,
        windows=len(sample),
        tokens=sum(map(len, sample)),
        sample_digest=asked[-1],
        threads=threads,
        candidates=candidates,
        measured=tuple(judged),
    )
    write_choice(path, choice)
    if costs:
        _keep_costs(folder, choice, sample, path, console)
    return choice


def _candidates(folder: Path, manifest: Manifest, reference: str) -> dict[str, str]:
    """Engines that can run here, as ``EngineChoice`` has them."""
    files = read_model_files(folder)
    found = {}
    for name in dict.fromkeys([reference, *engines_of(folder)]):
        file = files.path(ENGINES[name].reads)
        sealed = file is None or file.relative_to(folder).as_posix() in manifest.files
        found[name] = "" if sealed or file is None else file_sha256(file)
    return found


def _measure(
    folder: Path,
    names: Sequence[str],
    sample: Sequence[Sequence[int]],
    pad_id: int,
    *,
    reference: str,
    spec: ModelSpec | None,
    rounds: int,
    threads: int,
    console: Console | None,
) -> list[MeasuredEngine]:
    with Progress(console=console or Console(quiet=True), transient=True) as bar:
        task = bar.add_task("tune")
        measured = measure_engines(
            names,
            lambda name: make_engine(name, folder, threads=threads),
            sample,
            pad_id,
            reference=reference,
            spec=spec,
            rounds=rounds,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
    unfit = unfit_engines(folder).items()
    return measured + [MeasuredEngine(engine=name, error=reason) for name, reason in unfit]


def _say(console: Console | None, what: str) -> None:
    if console is not None:
        console.print(what, style="yellow", markup=False)


def reference_engine(folder: Path) -> str:
    """The engine whose answers are the model's: the folder's plain one.

    Of a model in torch it is the unpadded one, which computes the same in float32, where it knows
    the architecture.

    Raises:
        ArtifactError: it is no model's folder.
    """
    plain = plain_engine(folder)
    unpadded = plain == BASELINE and "torch-fp32" in engines_of(folder)
    return "torch-fp32" if unpadded else plain


def _keep_costs(
    folder: Path,
    choice: EngineChoice,
    sample: Sequence[Sequence[int]],
    path: Path,
    console: Console | None,
) -> None:
    try:
        _fit_costs(folder, choice, max(map(len, sample)), path)
    except EngineError as error:
        _say(console, f"no cost model is kept, serving begins with a cautious guess: {error}")


def _plain_model(folder: Path) -> TextModel[object]:
    if read_manifest(folder).kind == EMBEDDING_KIND:
        return load_embedder(folder, engine=PLAIN)
    return load_analyzer(folder, engine=PLAIN)


def _fit_costs(folder: Path, choice: EngineChoice, max_tokens: int, path: Path) -> None:
    measured = measure_costs(
        folder, choice.engine, threads=choice.threads, max_tokens=max(8, max_tokens)
    )
    measured.costs().save(costs_path(path))


def measure_costs(
    folder: Path,
    engine: str,
    *,
    threads: int,
    max_tokens: int,
    max_batch_tokens: int = 2048,
    held_out: int = 0,
) -> Calibration:
    """Measure what batches of an engine take, as it serves a folder but with nothing kept.

    Args:
        folder: of a classifier or an embedding model.
        engine: of ``ENGINES``.
        threads: compute threads.
        max_tokens: of one window.
        max_batch_tokens: padded tokens of one batch.
        held_out: batches that the fit does not see.

    Raises:
        EngineError: it cannot be made, or fails on a batch.
    """
    return calibrate(
        CalibrationRequest(
            make="serving.engines.choice:make_engine",
            arguments={
                "name": engine,
                "folder": str(folder.resolve()),
                "threads": threads,
                "bare": True,
            },
            device=ENGINES[engine].device,
            max_tokens=max_tokens,
            max_batch_tokens=max_batch_tokens,
            held_out=held_out,
        )
    )


def _read_texts(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--texts {str(path)!r} cannot be read: {error}; give a UTF-8 file, one text a line"
        ) from error
    if not texts:
        raise SettingsError(f"--texts {str(path)!r} is empty; write one text a line")
    return texts


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Of a classifier or an embedding model.")],
    texts: Annotated[Path | None, typer.Option(help="To measure on, one a line.")] = None,
    windows: Annotated[int, typer.Option(help="How many are made up without.")] = WINDOWS,
    rounds: Annotated[int, typer.Option(help="How often each batch is run.", min=1)] = 2,
    threads: Annotated[int, typer.Option(help="Of each engine.", min=1)] = 1,
    cos_mean: Annotated[float, typer.Option(help="At least.")] = QualityBudget().cos_mean,
    cos_p1: Annotated[float, typer.Option(help="At least.")] = QualityBudget().cos_p1,
    top10: Annotated[float, typer.Option(help="At least.")] = QualityBudget().top10_overlap,
    label_agreement: Annotated[
        float, typer.Option(help="At least, of each of a classifier's heads.")
    ] = QualityBudget().label_agreement,
    probability_shift: Annotated[
        float, typer.Option(help="At most, of each of a classifier's heads.")
    ] = QualityBudget().probability_shift,
    batch_invariant: Annotated[  # noqa: FBT002  # typer's way
        bool, typer.Option("--batch-invariant", help="No answer may depend on its batch-mates.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew.")] = False,  # noqa: FBT002
    costs: Annotated[bool, typer.Option(help="Also fit memory and seconds per batch.")] = True,  # noqa: FBT002
) -> None:
    """Measure the engines that a model can run on here, and keep the fastest that is exact."""
    console = Console()
    try:
        budget = QualityBudget(
            cos_mean=cos_mean,
            cos_p1=cos_p1,
            top10_overlap=top10,
            label_agreement=label_agreement,
            probability_shift=probability_shift,
            batch_invariant=batch_invariant,
        )
        choice = tune_engine(
            folder,
            home=engines_home(),
            budget=budget,
            texts=_read_texts(texts),
            windows=windows,
            rounds=rounds,
            threads=threads,
            again=again,
            costs=costs,
            console=console,
        )
    except (MatjipError, ValueError) as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(table(choice))
    console.print(str(choice_path(engines_home(), choice.model_digest, choice.hardware)))


if __name__ == "__main__":
    app()
