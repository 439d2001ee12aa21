"""What a running vLLM says of itself: which kernels compute it, from its own log.

An INT8 checkpoint that is loaded as something else still answers, only slower or worse; the metrics
and the API do not tell. The log does, once, while the weights are loaded.
"""

import re
from dataclasses import dataclass
from typing import Final

from data.errors import EngineError

SCHEMES: Final = {
    "w8a8": "CompressedTensorsW8A8Int8",
    "fp8": "CompressedTensorsW8A8Fp8",
    "w4a16": "CompressedTensorsWNA16",
}
_KERNEL: Final = re.compile(r"\b(?:Selected|Using) (\w+) for (CompressedTensors\w+)")
_ENGINE: Final = re.compile(r"Initializing a V1 LLM engine \(v(\S+)\) with config: (.*)")
_QUOTED: Final = re.compile(r"'[^']*'")
_SETTING: Final = re.compile(r"\b(quantization|dtype|kv_cache_dtype|device_config)=([\w.-]+)")


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
        EngineError: it was loaded as something else.
    """
    report = read_report(log)
    wanted = {SCHEMES[model_format]} if model_format in SCHEMES else set()
    if set(report.kernels) != wanted:
        raise EngineError(
            f"the model's format is {model_format!r}, vLLM loaded it with {report.kernels!r}, "
            f"expected {sorted(wanted)!r}; check the model folder's quantization_config"
        )
    return report
