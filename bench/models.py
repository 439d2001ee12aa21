"""The measured models as matjip deploys them: embedding folders with every graph that engines read.

MiniLM goes the way of a deployed model, by the same functions: adopted, exported, quantised, each
graph checked. Which INT8 scheme holds its vectors is so decided by the deployment's own limits, on
texts that quality is not measured on. ELECTRA-base's random weights have no quality to lose, so it
is quantised by the schemes that MiniLM was given: what is timed is what quality is read on.

    python -m bench.models

makes both where they are absent, says on standard error what it does, and prints their folder.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.corpus import calibration_texts, parity_sentences
from bench.progress import say
from bench.source_models import (
    MADE_BY,
    Name,
    key_of,
    make_source,
    model_folder,
    models_folder,
    remove_stale,
)
from data.contract import Label, LabelledReview, Review
from data.manifest import (
    MANIFEST_NAME,
    read_manifest,
    start_artifact,
    write_labelled_reviews,
    write_manifest,
)
from serving.embedding_folder import EMBEDDING_KIND

EMBEDDING_MADE_BY: Final = (
    *MADE_BY,
    "bench/models.py",
    "serving/embedding_folder.py",
    "serving/likeness.py",
    "serving/sentence_encoder.py",
    "serving/text_encoder.py",
    "training/activations.py",
    "training/adopt_embedding.py",
    "training/encoder_products.py",
    "training/export.py",
    "training/export_embedding.py",
    "training/half.py",
    "training/qdq.py",
    "training/quantize_embedding.py",
    "training/quantize_encoder.py",
    "training/retrieval_parity.py",
    "training/sentence_transformers_folder.py",
    "training/smoothing.py",
)
"""What adopts, exports and quantises, as patterns; what only parity of classifiers reads is not."""
_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
_CALIBRATION_TEXTS: Final = 256


def embedding_folder(name: Name) -> Path:
    """The model as matjip serves it.

    Raises:
        FileNotFoundError: today's code has not made it yet.
    """
    folder = _embedding_folder(name)
    if not (folder / MANIFEST_NAME).is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is missing or not whole; run `make bench-setup`, which makes it"
        )
    return folder


def _embedding_folder(name: Name) -> Path:
    return model_folder(name) / f"embedding-{key_of(EMBEDDING_MADE_BY, _LIBRARIES)}"


def make_models() -> None:
    """Make both models where today's code has not yet; three minutes of one core.

    Raises:
        FileNotFoundError: MiniLM's package is not installed.
        MatjipError: a graph does not answer like its source.
    """
    for name, make in (("minilm", _make_minilm), ("electra-base", _make_electra)):
        folder = _embedding_folder(name)
        if (folder / MANIFEST_NAME).is_file():
            continue
        say(f"{name}: made anew, since what makes it changed or it was not whole")
        source = make_source(name)
        remove_stale(folder, "embedding-*")
        shutil.rmtree(folder, ignore_errors=True)
        make(source, folder)
        say(f"{name}: whole")


def _make_minilm(source: Path, folder: Path) -> None:
    from training.adopt_embedding import adopt_embedding
    from training.export_embedding import export_embedding
    from training.quantize_embedding import quantize_embedding

    work = folder.with_name("making")
    split, adopted, exported = work / "split", work / "adopted", work / "exported"
    shutil.rmtree(work, ignore_errors=True)
    _write_split(split)
    adopt_embedding(str(source), adopted, name="minilm")
    write_manifest(adopted, EMBEDDING_KIND, {})
    say("minilm: exporting")
    export_embedding(adopted, split, exported, threads=1)
    say("minilm: quantising, each scheme until one holds")
    facts = quantize_embedding(exported, split, folder, threads=1).facts
    for graph, said in facts["formats"].items():
        say(f"minilm: {graph} {said.get('scheme', '')} {said['parity']}")
    for graph, why in facts["left_out"].items():
        say(f"minilm: {graph} is left out: {why}")
    shutil.rmtree(work)


def _write_split(folder: Path) -> None:
    """English sentences as the parts that export and quantiser read; labels they do not."""
    start_artifact(folder)
    parts = {
        "train": calibration_texts(_CALIBRATION_TEXTS, english=True),
        "validation": parity_sentences(),
    }
    for part, texts in parts.items():
        rows = [
            LabelledReview(
                review=Review(review_id=f"{part}-{number}", text=text), label=Label(intensity=0)
            )
            for number, text in enumerate(texts)
        ]
        write_labelled_reviews(folder / f"{part}.jsonl", rows)
    write_manifest(folder, "split", {})


def _make_electra(source: Path, folder: Path) -> None:
    from serving.sentence_encoder import OUTPUT, load_sentence_encoder
    from training.adopt_embedding import adopt_embedding
    from training.export import export_dynamo, export_fused
    from training.qdq import quantize_qdq
    from training.quantize_embedding import INT8, QDQ, SCHEMES

    formats = read_manifest(_embedding_folder("minilm"), EMBEDDING_KIND).facts["formats"]
    spec = adopt_embedding(str(source), folder, name="electra-base")

    def model(attention: str) -> Any:
        return load_sentence_encoder(
            folder / "source", pooling=spec.pooling, normalize=spec.normalize, attention=attention
        )

    say("electra-base: exporting for ONNX Runtime")
    export_fused(model("eager"), folder / "model.onnx", [OUTPUT])
    say("electra-base: exporting for OpenVINO")
    export_dynamo(model("sdpa"), folder / "graph.onnx", [OUTPUT])
    schemes = {name: formats[name]["scheme"] for name in (INT8, QDQ) if name in formats}
    if INT8 in schemes:
        say(f"electra-base: {INT8} by {schemes[INT8]!r}")
        SCHEMES[schemes[INT8]](folder / "model.onnx", folder / INT8)
    if QDQ in schemes:
        say(f"electra-base: {QDQ} by {schemes[QDQ]!r}")
        quantize_qdq(folder / "graph.onnx", folder / QDQ, _calibration(folder), scheme=schemes[QDQ])
    write_manifest(folder, EMBEDDING_KIND, {"schemes": schemes})


def _calibration(folder: Path) -> Sequence[Any]:
    """Padded batches of windows, as the quantiser of a deployed model takes them."""
    from serving.batching.planner import TOKEN_BUDGET, plan_batches
    from serving.windows import pad
    from training.export_embedding import embedder_of

    texts = calibration_texts(_CALIBRATION_TEXTS, english=False)
    model = embedder_of(folder / "model.onnx")
    windows = model.windows(texts).ids
    batches = plan_batches([len(window) for window in windows], TOKEN_BUDGET)
    return [pad([windows[row] for row in rows], model.pad_id) for rows in batches]


def main() -> None:
    """Make what is missing, and print where it is."""
    import torch

    torch.set_num_threads(1)
    make_models()
    print(models_folder())


if __name__ == "__main__":
    main()
