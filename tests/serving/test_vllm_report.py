"""What vLLM says of itself is read from its log: after the fact, or while it starts."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import ArtifactError, EngineError
from data.manifest import read_manifest
from serving.vllm_report import (
    KernelReport,
    kernel_of,
    prove_format,
    read_report,
    report_path,
    watch,
)

# Lines of vLLM 0.32.0, shortened.
ENGINE = (
    "(EngineCore pid=2) INFO 11-22 21:40:30 [core.py:133] Initializing a V1 LLM engine (v0.32.0) "
    "with config: model='/m/quantization=fp8', tokenizer='/m', dtype=torch.bfloat16, "
    "max_seq_len=512, quantization={}, quantization_config=None, kv_cache_dtype=auto, "
    "device_config=cpu, structured_outputs_config=StructuredOutputsConfig(backend='guidance')\n"
)
INT8 = (
    "(Worker pid=3) INFO 11-22 21:40:56 [__init__.py:846] "
    "Selected CPUInt8ScaledMMLinearKernel for CompressedTensorsW8A8Int8\n"
)
WEIGHT_ONLY = "INFO [x.py:138] Using MarlinLinearKernel for CompressedTensorsWNA16\n"
QUANTIZED = ENGINE.format("compressed-tensors")


def test_int8_is_proved_by_the_servers_own_log() -> None:
    assert prove_format(QUANTIZED + INT8 + INT8, "w8a8") == KernelReport(
        version="0.32.0",
        kernels={"CompressedTensorsW8A8Int8": "CPUInt8ScaledMMLinearKernel"},
        quantization="compressed-tensors",
        dtype="bfloat16",
        kv_cache_dtype="auto",
        device="cpu",
    )


def test_a_float_model_has_no_such_kernels() -> None:
    assert prove_format(ENGINE.format("None"), "bfloat16").quantization == "None"


@pytest.mark.parametrize(
    ("log", "model_format"),
    [
        (QUANTIZED, "w8a8"),
        (QUANTIZED + WEIGHT_ONLY, "w8a8"),
        (QUANTIZED + INT8 + WEIGHT_ONLY, "w8a8"),
        (QUANTIZED + INT8, "fp8"),
        (QUANTIZED + INT8, "bfloat16"),
    ],
)
def test_a_format_loaded_as_another_is_found(log: str, model_format: str) -> None:
    with pytest.raises(EngineError, match=f"format is '{model_format}', vLLM loaded it with"):
        prove_format(log, model_format)


@pytest.mark.parametrize("log", ["", INT8, "Traceback (most recent call last)"])
def test_a_log_without_a_start_proves_nothing(log: str) -> None:
    with pytest.raises(EngineError, match="does not say how vLLM was loaded"):
        read_report(log)


READY = "(APIServer pid=1) INFO:     Application startup complete.\n"
BROKEN = b"caf\xe9 \xed\x95\n"


def lines(log: str) -> list[bytes]:
    return [BROKEN, *log.encode().splitlines(keepends=True)]


def test_a_log_is_passed_on_whole_and_its_report_found_again(
    int8_of_base: Path, tmp_path: Path
) -> None:
    model, passed_on = read_manifest(int8_of_base), io.BytesIO()
    out = report_path(tmp_path / "vllm", model.digest)
    assert kernel_of(out.parent, model.digest) is None
    log = lines(QUANTIZED + INT8 + READY + "request\n" + WEIGHT_ONLY)
    assert watch(log, passed_on, model, out, server=None)
    assert passed_on.getvalue() == b"".join(log)
    said = json.loads(out.read_bytes())
    assert (said["model_digest"], said["format"], said["device"]) == (model.digest, "w8a8", "cpu")
    kernel = "CompressedTensorsW8A8Int8 by CPUInt8ScaledMMLinearKernel"
    assert kernel_of(out.parent, model.digest) == kernel
    out.write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no report of vLLM"):
        kernel_of(out.parent, model.digest)


@pytest.mark.parametrize("log", [ENGINE.format("None") + READY, QUANTIZED + WEIGHT_ONLY + READY])
def test_a_server_that_computes_something_else_is_asked_to_end(
    log: str, int8_of_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = read_manifest(int8_of_base), tmp_path / "report.json"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        assert not watch(lines(log), io.BytesIO(), model, out, server=server.pid)
        assert server.wait(30) == -signal.SIGTERM
    assert "the model's format is 'w8a8', vLLM loaded it with" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("log", ["", QUANTIZED + INT8, READY, QUANTIZED + READY])
def test_a_log_that_says_nothing_proves_nothing_and_stops_nobody(
    log: str, int8_of_base: Path, tmp_path: Path
) -> None:
    model, out = read_manifest(int8_of_base), tmp_path / "report.json"
    passed_on = io.BytesIO()
    assert not watch(lines(log), passed_on, model, out, server=1)
    assert passed_on.getvalue() == b"".join(lines(log))
    assert not out.exists()


def test_a_report_that_cannot_be_written_leaves_the_log_alone(
    int8_of_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    out, passed_on = tmp_path / "file" / "report.json", io.BytesIO()
    log = lines(QUANTIZED + INT8 + READY + "request\n")
    assert not watch(log, passed_on, read_manifest(int8_of_base), out, server=1)
    assert passed_on.getvalue().endswith(b"request\n")
    assert "no report of what vLLM loaded" in capsys.readouterr().err
