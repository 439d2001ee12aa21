"""PyTorch on an NVIDIA GPU in float16 or bfloat16: no padding, small batches as CUDA graphs."""

import threading
import traceback
from collections.abc import Callable

import torch

from data.errors import EngineError, EngineMemoryError
from serving.engines.half_encoder import DTYPES, AttentionKind, HalfEncoder, HalfPrecision
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.pytorch import out_of_memory
from serving.engines.recorded import RECORDING, Lane, Record, cuda_graphs
from serving.text_encoder import TextEncoder

_BF16_CAPABILITY = (8, 0)


class TorchCudaEngine:
    """Serves BERT, ELECTRA, RoBERTa and XLM-RoBERTa encoders, whatever is made of their states.

    Each calling thread has a stream and recordings of its own, so batches run side by side.

    Attributes:
        attention: ``varlen`` where torch's kernel for it runs, else ``masked``.
    """

    batch_invariant = True
    computes_padding = False
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(
        self,
        model: TextEncoder,
        *,
        precision: HalfPrecision,
        device: str = "cuda",
        attention: AttentionKind | None = None,
        recorder: Callable[[], Record | None] | None = None,
    ):
        """Copy a model's weights to the device.

        Args:
            model: in eval mode, on the CPU.
            precision: of the encoder's layers; pooling and heads stay in float32.
            device: ``cuda`` with or without an index; ``cpu`` computes the same, slowly.
            attention: None takes the faster one of those that run.
            recorder: makes each thread's recorder of launches, or None where nothing is to be
                recorded; without, CUDA graphs on a GPU.

        Raises:
            EngineError: there is no such device or precision, or the model is no BERT-like encoder.
            EngineMemoryError: the device has no room for the weights.
        """
        if precision not in DTYPES:
            raise EngineError(
                f"precision={precision!r} is none of {list(DTYPES)!r}; for float32 take the "
                "engine 'torch-fp32'"
            )
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        if on_gpu and (reason := unfit_here(precision)):
            raise EngineError(f"device={device!r} cannot be used: {reason}")
        try:
            self._encoder = HalfEncoder(
                model, precision=precision, device=self._device, attention=attention
            )
            if on_gpu:  # lanes have streams of their own, which must find the weights there
                torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            raise self._failed("while the weights were copied", error) from error
        self._recorder = recorder or (cuda_graphs if on_gpu else None)
        self._lanes = threading.local()
        self.attention = self._encoder.attention
        self.name = f"torch-{torch.__version__}-{self._device}-{precision}-{self.attention}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        self._check(input_ids)
        lane = self._lane()
        try:
            return lane.run(input_ids, attention_mask)
        except (RuntimeError, MemoryError) as error:
            lane.forget()
            raise self._failed(f"on a batch of shape {input_ids.shape!r}", error) from error

    def forget(self) -> None:
        """Give back what the calling thread's recordings hold, so that a batch shows its memory."""
        self._lane().forget()

    def _lane(self) -> Lane:
        lane: Lane | None = getattr(self._lanes, "lane", None)
        if lane is None:
            record = self._recorder() if self._recorder is not None else None
            lane = self._lanes.lane = Lane(self._encoder, self._device, record)
        return lane

    def _check(self, input_ids: TokenIds) -> None:
        """An id that is not in the vocabulary would end the GPU's whole context, not the batch."""
        longest, known = self._encoder.most_tokens, self._encoder.vocabulary
        if input_ids.shape[1] > longest:
            raise EngineError(
                f"windows of {input_ids.shape[1]!r} tokens, and the model has {longest!r} "
                "positions; lower max_tokens"
            )
        if input_ids.size and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < known:
            raise EngineError(
                f"token ids from {int(input_ids.min())!r} to {int(input_ids.max())!r}, and the "
                f"model has {known!r}; use the tokenizer that belongs to it"
            )

    def _failed(self, when: str, error: BaseException) -> EngineError:
        """Torch's failure as matjip's; what the failed call held is given back to the device."""
        memory = out_of_memory(error)
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if memory and self._device.type == "cuda":
            traceback.clear_frames(error.__traceback__)  # they hold the batch's tensors
            with RECORDING:
                torch.cuda.empty_cache()
        kind = EngineMemoryError if memory else EngineError
        mend = "; send smaller batches, or free memory of the device" if memory else ""
        return kind(f"torch failed on {str(self._device)!r} {when}: {said}{mend}")


def unfit_here(precision: HalfPrecision) -> str | None:
    """Why this machine cannot run a precision on a GPU; None where it can."""
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no NVIDIA GPU; install torch's CUDA wheel and a "
            "driver, or serve on the CPU"
        )
    capability = torch.cuda.get_device_capability()
    if precision == "bf16" and capability < _BF16_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name()!r} has compute capability {capability!r} and bfloat16 "
            f"needs {_BF16_CAPABILITY!r}; take 'torch-cuda-fp16'"
        )
    return None
