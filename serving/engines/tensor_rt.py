"""TensorRT 11 on a GPU: engines built for that GPU (`make build-engine`), a context per profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import ArtifactError, EngineError, EngineMemoryError
from serving.engines.plan_folder import (
    MEND,
    PLAN_FOLDER,
    PlanPrecision,
    foreign_reason,
    profile_for,
    read_plan,
    read_plan_spec,
    unfit_reason,
)
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.tensor_rt_lane import ProfileLane
from serving.engines.tensor_rt_library import (
    import_tensorrt,
    listener,
    said,
    tells_of_memory,
    this_sm,
)


class TensorRtEngine:
    """Serves an engine of a plan folder (serving/engines/plan_folder.py).

    A batch runs in the smallest profile that holds it: its tokens are padded up to the profile's,
    its rows are not. Batches of different profiles run side by side on streams of their own; those
    of one profile take turns.

    Attributes:
        max_rows: of the largest profile; a larger batch goes in slices.
        length_buckets: tokens of the profiles.
    """

    batch_invariant = True  # Q/DQ scales are fixed, and no kernel looks over a row's edge
    computes_padding = True

    def __init__(
        self,
        folder: Path,
        outputs: Sequence[str],
        *,
        precision: PlanPrecision | None = None,
        library: Any = None,
        device: str = "cuda",
    ):
        """Load an engine.

        Args:
            folder: with plan.json.
            outputs: names of the outputs to answer with.
            precision: of the folder's engines; None is the one that was chosen.
            library: TensorRT's module; imported without.
            device: of torch, that the engine runs on.

        Raises:
            EngineError: TensorRT or the GPU is missing, or the engine was built for another GPU
                or version, or TensorRT refuses it.
            EngineMemoryError: the GPU has too little memory for it.
            ArtifactError: the folder holds no such engine, or it was altered.
        """
        library = library or import_tensorrt()
        spec = read_plan_spec(folder)
        version = str(library.__version__)
        if reason := unfit_reason(spec, sm=this_sm(), tensorrt=version):
            raise EngineError(f"{str(folder)!r} cannot be served: {reason}")
        precision = precision or spec.chosen
        plan = read_plan(folder, spec, precision)
        self._log = listener(library)
        self._runtime = library.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            why = said(self._log)
            failed = EngineMemoryError if tells_of_memory(why) else EngineError
            raise failed(f"TensorRT {version} cannot load {str(folder)!r}: {why}; {MEND}")
        self._check_outputs(outputs, folder)
        self._profiles = spec.profiles
        self._lanes = [
            ProfileLane(
                library, self._engine, number, profile, outputs, device=device, log=self._log
            )
            for number, profile in enumerate(spec.profiles)
        ]
        self.name = f"tensorrt-{version}-{precision}"
        self.max_rows: int | None = max(profile.batch for profile in spec.profiles)
        self.length_buckets = tuple(sorted({profile.tokens for profile in spec.profiles}))

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        rows, tokens = input_ids.shape
        lane = self._lane(rows, tokens)
        size = lane.profile.batch
        try:
            parts = [
                lane.run(input_ids[start : start + size], attention_mask[start : start + size])
                for start in range(0, rows, size)
            ]
        except torch.OutOfMemoryError as error:
            raise EngineMemoryError(
                f"the GPU ran out of memory on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        except RuntimeError as error:  # torch's, of a GPU that failed
            raise EngineError(
                f"the GPU failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def device_bytes(self, rows: int, tokens: int) -> int:
        """Bytes of the GPU that the profile of such a batch holds, weights left out."""
        return self._lane(rows, tokens).device_bytes

    def _lane(self, rows: int, tokens: int) -> ProfileLane:
        number = profile_for(self._profiles, rows, tokens)
        if number is None:
            longest = max(profile.tokens for profile in self._profiles)
            raise EngineError(
                f"a window of {tokens!r} tokens is longer than the longest profile, {longest!r}; "
                f"{MEND}"
            )
        return self._lanes[number]

    def _check_outputs(self, outputs: Sequence[str], folder: Path) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        if missing := [name for name in outputs if name not in names]:
            raise EngineError(
                f"the engine in {str(folder)!r} lacks the outputs {missing!r}, it has {names!r}; "
                "it is of another model: build it from this one's graphs"
            )


def unfit_here(model: Path, precision: PlanPrecision) -> str | None:
    """Why an engine that was built for a model cannot run on this machine; None where it can.

    Args:
        model: the model's folder, with a plan folder in it.
        precision: of the engine.
    """
    folder = model / PLAN_FOLDER
    try:
        spec = read_plan_spec(folder)
        if precision not in spec.plans:
            return spec.left_out.get(precision, f"no {precision!r} engine was built; {MEND}")
        version = str(import_tensorrt().__version__)
        return foreign_reason(spec, model) or unfit_reason(spec, sm=this_sm(), tensorrt=version)
    except (ArtifactError, EngineError) as error:
        return str(error)
