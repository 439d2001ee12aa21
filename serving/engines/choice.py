"""Which engine runs a folder, and the model around it."""

from pathlib import Path

from tokenizers import Tokenizer

from data.errors import EngineError
from data.manifest import read_manifest
from serving.embedder import Embedder
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, read_embedding_spec
from serving.engines.protocol import Engine


def load_embedder(folder: Path, *, engine: str | None = None, threads: int = 1) -> Embedder:
    """Load an embedding folder, hashes checked.

    Args:
        folder: an embedding folder (serving/embedding_folder.py).
        engine: a name, such as onnxruntime-fp32; none takes the folder's plain default, ONNX
            Runtime in fp32, or torch where nothing is exported.
        threads: compute threads of the engine.

    Raises:
        ArtifactError: a file is missing or altered.
        EngineError: there is no such engine, or it cannot load the folder.
    """
    read_manifest(folder, EMBEDDING_KIND)
    spec = read_embedding_spec(folder)
    name = engine or ("onnxruntime-fp32" if (folder / "model.onnx").is_file() else "torch-fp32")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Embedder(tokenizer, _engine(name, folder, spec, threads), spec)


def _engine(name: str, folder: Path, spec: EmbeddingSpec, threads: int) -> Engine:
    graphs = {"onnxruntime-fp32": "model.onnx", "onnxruntime-int8": "int8.onnx"}
    if name in graphs:
        from serving.engines.onnx_runtime import OnnxRuntimeEngine
        from serving.sentence_encoder import OUTPUT

        return OnnxRuntimeEngine(folder / graphs[name], [OUTPUT], threads=threads)
    if name == "torch-fp32":
        from serving.engines.pytorch import PytorchEngine
        from serving.sentence_encoder import load_sentence_encoder

        model = load_sentence_encoder(
            folder / "source", pooling=spec.pooling, normalize=spec.normalize
        )
        return PytorchEngine(model, threads=threads)
    raise EngineError(f"no engine {name!r}; the engines are {[*graphs, 'torch-fp32']!r}")
