"""What a running vLLM says of itself: which kernels compute it, from its own log.

    python -m serving.vllm_report var/model --out report.json < vllm.log

An INT8 checkpoint that is loaded as something else still answers, only slower or worse; the metrics
and the API do not tell. The log does, once, while the weights are loaded. ``serve`` of
serving/vllm_launch.py has its log read as it is written, and stops a server that is something else.
"""

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from data.errors import ArtifactError, EngineError, MatjipError
from data.manifest import Manifest, write_json
from serving.language_folder import read_language_model

SCHEMES: Final = {
    "w8a8": "CompressedTensorsW8A8Int8",
    "fp8": "CompressedTensorsW8A8Fp8",
    "w4a16": "CompressedTensorsWNA16",
}
READY: Final = b"Application startup complete"
_KERNEL: Final = re.compile(r"\b(?:Selected|Using) (\w+) for (CompressedTensors\w+)")
_ENGINE: Final = re.compile(r"Initializing a V1 LLM engine \(v(\S+)\) with config: (.*)")
_QUOTED: Final = re.compile(r"'[^']*'")
_SETTING: Final = re.compile(r"\b(quantization|dtype|kv_cache_dtype|device_config)=([\w.-]+)")


class _OtherFormatError(EngineError):
    """vLLM says that it computes the model as another format."""


@dataclass(frozen=True)
class KernelReport:
    """How a server computes its model.

    Attributes:
        version: of vLLM.
        kernels: compressed-tensors scheme → kernel; empty where nothing is quantised.
        quantization: as vLLM names the method; ``None`` where there is none.
        dtype: of what is not quantised.
        kv_cache_dtype: ``auto`` is the dtype.
        device: ``cuda`` or ``cpu``.
    """

    version: str
    kernels: dict[str, str]
    quantization: str
    dtype: str
    kv_cache_dtype: str
    device: str


def read_report(log: str) -> KernelReport:
    """A server's report, from its log up to now.

    Raises:
        EngineError: the log holds none; vLLM's level of logging must be INFO, as it is by itself.
    """
    engine = _ENGINE.search(log)
    if engine is None:
        raise EngineError(
            f"a log of {len(log)} characters does not say how vLLM was loaded; pass the log of its "
            "start, at level INFO"
        )
    # Names of folders may hold anything; the first mention of a setting is the server's own.
    said = dict(reversed(_SETTING.findall(_QUOTED.sub("", engine[2]))))
    return KernelReport(
        version=engine[1],
        kernels={scheme: kernel for kernel, scheme in _KERNEL.findall(log)},
        quantization=said.get("quantization", "None"),
        dtype=said.get("dtype", "").removeprefix("torch."),
        kv_cache_dtype=said.get("kv_cache_dtype", ""),
        device=said.get("device_config", ""),
    )


def prove_format(log: str, model_format: str) -> KernelReport:
    """A server's report, after it was found to compute a format as that format.

    Args:
        log: of its start.
        model_format: as the model's manifest says it.

    Raises:
        EngineError: it was loaded as something else, or the log does not say.
    """
    report = read_report(log)
    _check(report, model_format)
    return report


def _check(report: KernelReport, model_format: str) -> None:
    wanted = {SCHEMES[model_format]} if model_format in SCHEMES else set()
    if set(report.kernels) == wanted:
        return
    told = (
        f"the model's format is {model_format!r}, vLLM loaded it with {report.kernels!r}, "
        f"expected {sorted(wanted)!r}"
    )
    if wanted and not report.kernels and report.quantization == "compressed-tensors":
        # It read the model's own quantisation and named no kernel: of this nothing is known.
        raise EngineError(f"{told}; pass the log of its start, at level INFO")
    raise _OtherFormatError(f"{told}; check the model folder's quantization_config")


def watch(
    log: Iterable[bytes], passed_on: BinaryIO, model: Manifest, out: Path, *, server: int | None
) -> bool:
    """Pass a server's log on, line by line, and write what it loaded once it is ready.

    Whatever goes wrong with the report, the log is passed on to its end: a server whose log nobody
    reads stands still. A log that does not say what was loaded proves nothing, and stops nobody.

    Args:
        log: of its start, as it comes.
        passed_on: where every line goes.
        model: what it was told to load.
        out: file for the report, JSON.
        server: process that is asked to end if it computes the model as another format.

    Returns:
        Whether the report was written.
    """
    with contextlib.suppress(OSError):
        out.unlink(missing_ok=True)  # what an earlier start said proves nothing of this one
    said: list[bytes] | None = []
    written = False
    for line in log:
        passed_on.write(line)
        passed_on.flush()
        if said is None:
            continue
        said.append(line)
        if READY in line:
            text, said = b"".join(said).decode(errors="replace"), None
            written = _report(text, model, out, server)
    return written


def _report(log: str, model: Manifest, out: Path, server: int | None) -> bool:
    model_format = str(model.facts.get("format"))
    try:
        report = read_report(log)
        _check(report, model_format)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, asdict(report) | {"format": model_format, "model_digest": model.digest})
    except _OtherFormatError as error:
        print(error, file=sys.stderr, flush=True)
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGTERM)
        return False
    except (MatjipError, OSError) as error:
        print(f"no report of what vLLM loaded: {error}", file=sys.stderr, flush=True)
        return False
    return True


def kernel_of(reports: Path, digest: str) -> str | None:
    """The kernel that a vLLM reported for a model, or None where none has served it.

    Raises:
        ArtifactError: the report is none.
    """
    path = report_path(reports, digest)
    if not path.is_file():
        return None
    try:
        kernels: dict[str, Any] = json.loads(path.read_bytes())["kernels"]
        return ", ".join(f"{scheme} by {kernel}" for scheme, kernel in kernels.items()) or "float"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{str(path)!r} is no report of vLLM: {error!r}; delete it") from error


def report_path(reports: Path, digest: str) -> Path:
    """Where the report of one model lies."""
    return reports / f"{digest[:16]}.json"


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the model that is served.")],
    out: Annotated[Path, typer.Option(help="File for the report, JSON.")],
    stop: Annotated[int | None, typer.Option(help="Process to end if it is not that.")] = None,
) -> None:
    """Read a vLLM's log from standard input and write what it loaded."""
    # Whoever ends the server from a terminal asks this too; its last lines are still to be said.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        manifest = read_language_model(model)
    except MatjipError as error:
        sys.exit(str(error))
    written = watch(sys.stdin.buffer, sys.stdout.buffer, manifest, out, server=stop)
    sys.exit(0 if written else 1)


if __name__ == "__main__":
    typer.run(main)
