import pytest

from data.errors import EngineError
from serving.vllm_report import KernelReport, prove_format, read_report

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
