"""ONNX Runtime on a CPU: threads that have nothing to do take no time."""

import time

import numpy as np

from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.logits import LOGITS


def test_threads_that_wait_do_not_spin(tiny_models):
    engine = OnnxRuntimeEngine(tiny_models["champion"] / "model.onnx", LOGITS, threads=3)
    ids = np.full((16, 32), 7, np.int64)
    idle_s = 0.0
    for _ in range(10):
        engine.run(ids, np.ones_like(ids))
        begun = time.process_time()
        time.sleep(0.03)
        idle_s += time.process_time() - begun
    assert idle_s < 0.03  # spinning for a tenth of the sleeps would take as much
