"""Which engines a model's folder can run on, and the one that does: by name, or as tuned.

An engine is one line of ``ENGINES``: the file it reads, the library it needs, how it is made.
"""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tokenizers import Tokenizer

from data.errors import EngineError
from data.manifest import read_manifest
from serving.embedder import Embedder
from serving.embedding_folder import EMBEDDING_KIND, read_embedding_spec
from serving.engines.model_files import ModelFiles, Role, read_model_files
from serving.engines.protocol import Engine
from serving.engines.tensor_rt_library import EXTRA
from serving.engines.tuned import Chosen, tuned_costs, tuned_engine

if TYPE_CHECKING:
    from serving.engines.half_encoder import HalfPrecision
    from serving.engines.open_vino import Precision as OpenVinoPrecision
    from serving.engines.plan_folder import PlanPrecision
    from serving.engines.unpadded import Precision as TorchPrecision

_log = logging.getLogger(__name__)
PLAIN: Final = "plain"
"""The name that takes a folder's plain engine, whatever was tuned: for parity and evidence."""
Make = Callable[[ModelFiles, Path, int], Engine]


def _fits(folder: Path) -> None:
    """A file that runs on any machine."""


@dataclass(frozen=True)
class EngineMaker:
    """How one engine is made.

    Attributes:
        reads: the file that it needs.
        library: the module that it needs.
        mend: what to do where the library is missing.
        make: from the folder, the file and the number of threads.
        bare: likewise, but without memory kept between batches, so that it can be measured; None
            where ``make`` keeps none, or the engine's ``forget`` gives it back.
        device: where it computes, and so how its time is measured.
        unfit: why what the folder holds cannot run on this machine; None where it can.
    """

    reads: Role
    library: str
    mend: str
    make: Make
    bare: Make | None = None
    device: Literal["cpu", "gpu"] = "cpu"
    unfit: Callable[[Path], str | None] = _fits


def _padded(files: ModelFiles, path: Path, threads: int) -> Engine:
    from serving.engines.pytorch import PytorchEngine

    return PytorchEngine(files.load_torch(), threads=threads)


def _unlike_bert(folder: Path) -> str | None:
    from serving.engines.bert_family import unlike_bert

    weights = read_model_files(folder).path("torch")
    return unlike_bert(weights.parent) if weights else None


def _unpadded(precision: "TorchPrecision") -> EngineMaker:
    def make(files: ModelFiles, path: Path, threads: int) -> Engine:
        from serving.engines.unpadded import UnpaddedEngine

        return UnpaddedEngine(files.load_torch(), precision=precision, threads=threads)

    return EngineMaker("torch", "torch", _SETUP, make, unfit=_unlike_bert)


def _torch_cuda(precision: "HalfPrecision") -> EngineMaker:
    def make(files: ModelFiles, path: Path, threads: int) -> Engine:
        from serving.engines.torch_cuda import TorchCudaEngine

        return TorchCudaEngine(files.load_torch(), precision=precision)

    def unfit(folder: Path) -> str | None:
        from serving.engines.torch_cuda import unfit_here

        return unfit_here(precision) or _unlike_bert(folder)

    return EngineMaker("torch", "torch", _SETUP, make, device="gpu", unfit=unfit)


def _onnx_runtime(role: Role) -> EngineMaker:
    def maker(arena: bool) -> Make:  # noqa: FBT001  # one of two makers, named below
        def make(files: ModelFiles, path: Path, threads: int) -> Engine:
            from serving.engines.onnx_runtime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(path, files.outputs, threads=threads, arena=arena)

        return make

    return EngineMaker(role, "onnxruntime", _SETUP, maker(arena=True), bare=maker(arena=False))


def _open_vino(precision: "OpenVinoPrecision", group_size: int | None = 128) -> Make:
    def make(files: ModelFiles, path: Path, threads: int) -> Engine:
        from serving.engines.open_vino import OpenVinoEngine

        return OpenVinoEngine(
            path, files.outputs, precision=precision, threads=threads, group_size=group_size
        )

    return make


def _tensor_rt(precision: "PlanPrecision") -> EngineMaker:
    def make(files: ModelFiles, path: Path, threads: int) -> Engine:
        from serving.engines.tensor_rt import TensorRtEngine

        return TensorRtEngine(path.parent, files.outputs, precision=precision)

    def unfit(folder: Path) -> str | None:
        from serving.engines.tensor_rt import unfit_here

        return unfit_here(folder, precision)

    role: Role = "tensorrt-fp16" if precision == "fp16" else "tensorrt-int8"
    return EngineMaker(role, "tensorrt", EXTRA, make, device="gpu", unfit=unfit)


_SETUP: Final = "run `make setup`, which installs locks/main.txt"
BASELINE: Final = "torch-fp32-padded"
"""The model as it was trained, batch padded: a candidate only where it is what others are compared
with, as of an architecture that no unpadded engine computes."""

ENGINES: Final[dict[str, EngineMaker]] = {
    BASELINE: EngineMaker("torch", "torch", _SETUP, _padded),
    "torch-fp32": _unpadded("fp32"),
    "onnxruntime-fp32": _onnx_runtime("onnx"),
    "openvino-fp32": EngineMaker("graph", "openvino", _SETUP, _open_vino("fp32")),
    "tensorrt-fp16": _tensor_rt("fp16"),
    "torch-cuda-fp16": _torch_cuda("fp16"),
    "torch-cuda-bf16": _torch_cuda("bf16"),
    "torch-bf16": _unpadded("bf16"),
    "openvino-bf16": EngineMaker("graph", "openvino", _SETUP, _open_vino("bf16")),
    "torch-int8": _unpadded("int8"),
    "openvino-int8": EngineMaker("graph", "openvino", _SETUP, _open_vino("int8")),
    "openvino-int8-rows": EngineMaker("graph", "openvino", _SETUP, _open_vino("int8", None)),
    "openvino-int8-static": EngineMaker("qdq", "openvino", _SETUP, _open_vino("int8")),
    "onnxruntime-int8": _onnx_runtime("onnx-int8"),
    "tensorrt-int8": _tensor_rt("int8"),
}
"""By name, the most exact first."""


def engines_of(folder: Path) -> list[str]:
    """Engines whose file the folder holds and which can run here, the most exact first.

    One whose library is missing is left out, and one that was built for another machine.

    Raises:
        ArtifactError: it is no model's folder.
    """
    files = read_model_files(folder)
    return [
        name
        for name, maker in ENGINES.items()
        if name != BASELINE
        and files.path(maker.reads) is not None
        and unfit_reason(name, folder) is None
    ]


def unfit_engines(folder: Path) -> dict[str, str]:
    """Engines whose file the folder holds but which cannot run here, each with the reason.

    Raises:
        ArtifactError: it is no model's folder.
    """
    files = read_model_files(folder)
    reasons = {
        name: unfit_reason(name, folder)
        for name, maker in ENGINES.items()
        if files.path(maker.reads) is not None
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def unfit_reason(name: str, folder: Path) -> str | None:
    """Why an engine cannot serve a folder on this machine; None where it can.

    Raises:
        ArtifactError: it is no model's folder.
    """
    maker, files = ENGINES.get(name), read_model_files(folder)
    if maker is None:
        return f"there is no such engine; the engines are {list(ENGINES)!r}"
    if files.path(maker.reads) is None:
        return f"the folder holds no {files.names.get(maker.reads, maker.reads)!r}"
    if importlib.util.find_spec(maker.library) is None:
        return f"{maker.library!r} is not installed; {maker.mend}"
    return maker.unfit(folder)


def plain_engine(folder: Path) -> str:
    """The engine of a folder that nobody tuned: ONNX Runtime, or torch where nothing is exported.

    Raises:
        ArtifactError: it is no model's folder.
    """
    names = read_model_files(folder).names
    if (folder / names.get("onnx", "")).is_file():
        return "onnxruntime-fp32"
    if "torch" in names:
        return BASELINE
    return "onnxruntime-fp32" if "onnx" in names else "onnxruntime-int8"


def make_engine(name: str, folder: Path | str, *, threads: int = 1, bare: bool = False) -> Engine:
    """Make one engine for a folder; hashes are not checked here.

    Args:
        name: of ``ENGINES``, or ``plain``.
        folder: of a classifier or an embedding model.
        threads: compute threads.
        bare: keep no memory between batches, which is slower: for measuring what a batch takes.

    Raises:
        ArtifactError: it is no model's folder.
        EngineError: no such engine, its file or library is missing, it was built for another
            machine, or it cannot load the model.
    """
    folder = Path(folder)
    name = plain_engine(folder) if name == PLAIN else name
    if name not in ENGINES:
        raise EngineError(f"no engine {name!r}; the engines are {list(ENGINES)!r}")
    maker, files = ENGINES[name], read_model_files(folder)
    if maker.reads in files.names and (reason := maker.unfit(folder)):
        raise EngineError(f"engine {name!r} cannot serve {str(folder)!r}: {reason}")
    path = files.path(maker.reads)
    if path is None:
        lacking = files.names.get(maker.reads)
        what = f"lacks {lacking!r}" if lacking else f"is of a format without {maker.reads!r} files"
        raise EngineError(
            f"engine {name!r} cannot serve {str(folder)!r}: it {what}; export the model again, or "
            f"take one of {engines_of(folder)!r}"
        )
    if importlib.util.find_spec(maker.library) is None:
        raise EngineError(
            f"engine {name!r} needs {maker.library!r}, which is not installed; {maker.mend}"
        )
    make = maker.bare if bare and maker.bare else maker.make
    return make(files, path, threads)


def choose_engine(folder: Path, digest: str, asked: str | None, threads: int) -> Chosen:
    """The engine that serves a folder.

    Args:
        folder: of a classifier or an embedding model.
        digest: of its manifest.
        asked: of ``ENGINES`` or ``plain``; None takes the engine that was tuned for this model on
            this machine, else the plain one. A tuned one that cannot run is warned of.
        threads: compute threads.

    Raises:
        ArtifactError: it is no model's folder.
    """
    warning = None
    if asked is None:
        asked, problem = tuned_engine(digest)
        if asked is not None and (reason := unfit_reason(asked, folder)):
            problem = f"{asked!r}: {reason}"
            asked = None
        if problem is not None:
            plain = plain_engine(folder)
            warning = (
                f"the tuned engine of {str(folder)!r} is not served, but {plain!r}: {problem}; "
                "run `make tune-engine` on this machine again"
            )
            _log.warning("%s", warning)
    name = plain_engine(folder) if asked in {None, PLAIN} else str(asked)
    return Chosen(name, threads, tuned_costs(digest, name, threads), warning)


def load_embedder(folder: Path, *, engine: str | None = None, threads: int = 1) -> Embedder:
    """Load an embedding folder, hashes checked.

    Args:
        folder: an embedding folder (serving/embedding_folder.py).
        engine: of ``ENGINES``; None takes what ``make tune-engine`` chose for this model on this
            machine, else the plain one.
        threads: compute threads of the engine.

    Raises:
        ArtifactError: a file is missing or altered.
        EngineError: there is no such engine, or it cannot load the folder.
    """
    manifest = read_manifest(folder, EMBEDDING_KIND)
    spec = read_embedding_spec(folder)
    chosen = choose_engine(folder, manifest.digest, engine, threads)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made = make_engine(chosen.engine, folder, threads=threads)
    return Embedder(tokenizer, made, spec, chosen=chosen)
