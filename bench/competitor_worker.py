"""A contestant in an environment of its own: texts on standard input, times and vectors back.

Run by another environment's Python, so it imports nothing of matjip, and of its own libraries only
the one that is asked for.

    python competitor_worker.py export-onnx SOURCE OUT
    python competitor_worker.py export-openvino SOURCE OUT CALIBRATION.jsonl TEXTS
    python competitor_worker.py sentence-transformers FOLDER '{"backend": "torch"}'
    python competitor_worker.py infinity FOLDER '{"engine": "torch", "dtype": "bfloat16"}'

A line in is ``{"texts": [...], "batch_size": 32, "vectors": path or null}``; a line out is the
processor and wall seconds that they took, tokenising included.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

ONNX_INT8 = "onnx/model_qint8_avx512_vnni.onnx"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"


def one_onnx_thread() -> None:
    """Make one thread the default of every ONNX Runtime session; its libraries do not ask."""
    import onnxruntime

    class OneThread(onnxruntime.InferenceSession):
        def __init__(self, path_or_bytes: Any, sess_options: Any = None, **rest: Any):
            options = sess_options or onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            super().__init__(path_or_bytes, sess_options=options, **rest)

    onnxruntime.InferenceSession = OneThread


def export_onnx(source: str, out: str) -> None:
    """sentence-transformers' own ONNX export and int8, and the layout that infinity looks for."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    shutil.copytree(source, out, dirs_exist_ok=True)
    model = SentenceTransformer(out, backend="onnx", model_kwargs={"export": True})
    model.save_pretrained(out)
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", out)
    beside = Path(f"{out}-infinity")
    shutil.copytree(source, beside, dirs_exist_ok=True)
    shutil.copy(Path(out) / ONNX_INT8, beside / "model_quantized.onnx")


def export_openvino(source: str, out: str, calibration: str, texts: str) -> None:
    """sentence-transformers' own OpenVINO export and static int8, calibrated on so many texts."""
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    shutil.copytree(source, out, dirs_exist_ok=True)
    model = SentenceTransformer(out, backend="openvino", model_kwargs={"export": True})
    model.save_pretrained(out)
    # The library pads calibration texts to 384 tokens, so they are many seconds each.
    export_static_quantized_openvino_model(
        model,
        OVQuantizationConfig(num_samples=int(texts)),
        out,
        dataset_name=str(Path(calibration).parent),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


def sentence_transformers(folder: str, backend: str, **settings: Any) -> Callable[..., Any]:
    """``SentenceTransformer.encode``."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    arguments: dict[str, Any] = dict(settings)
    if backend == "openvino":
        arguments["ov_config"] = {"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
    if "torch_dtype" in arguments:
        arguments["torch_dtype"] = getattr(torch, arguments["torch_dtype"])
    model = SentenceTransformer(folder, backend=backend, device="cpu", model_kwargs=arguments)

    def encode(texts: Sequence[str], batch_size: int) -> Any:
        return model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )

    return encode


def infinity(folder: str, **settings: Any) -> Callable[..., Any]:
    """Infinity's engine called from Python: its own queue, sorting and batches, without HTTP."""
    # It looks for ONNX files in a way that only relative paths survive, and keeps what it optimises
    # under the model's name.
    os.environ["HF_HUB_CACHE"] = f"{folder}-cache"
    os.chdir(folder)
    import numpy as np
    import torch
    from infinity_emb import AsyncEngineArray, EngineArgs

    torch.set_num_threads(1)
    loop = asyncio.new_event_loop()
    arguments = EngineArgs(
        model_name_or_path=".",
        device="cpu",
        model_warmup=False,
        trust_remote_code=False,
        **settings,
    )
    engine = AsyncEngineArray.from_args([arguments])[0]
    loop.run_until_complete(engine.astart())

    def encode(texts: Sequence[str], batch_size: int) -> Any:
        # Its queue reads the batch size at each turn.
        vars(engine)["_batch_handler"].max_batch_size = batch_size
        vectors, _ = loop.run_until_complete(engine.embed(sentences=list(texts)))
        return np.stack(vectors)

    return encode


def answers_apart() -> TextIO:
    """Where answers go; what libraries print goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def serve(encode: Callable[..., Any], channel: TextIO) -> None:
    """Answer lines until standard input ends."""
    import numpy as np

    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter(), time.process_time()
        vectors = encode(asked["texts"], asked["batch_size"])
        answer = {
            "wall_s": time.perf_counter() - began[0],
            "cpu_s": time.process_time() - began[1],
        }
        if asked.get("vectors"):
            np.save(asked["vectors"], np.asarray(vectors, dtype=np.float32))
        channel.write(json.dumps(answer) + "\n")
        channel.flush()
    os._exit(0)  # infinity's threads wait for work for ever


def main(kind: str, *arguments: str) -> None:
    """See the module."""
    if kind.startswith("export"):
        {"export-onnx": export_onnx, "export-openvino": export_openvino}[kind](*arguments)
        return
    channel = answers_apart()
    folder, settings = arguments
    options = json.loads(settings)
    if options.get("engine") == "optimum" or options.get("backend") == "onnx":
        one_onnx_thread()
    make = {"sentence-transformers": sentence_transformers, "infinity": infinity}[kind]
    serve(make(folder, **options), channel)


if __name__ == "__main__":
    main(*sys.argv[1:])
