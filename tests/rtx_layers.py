"""The layers that TensorRT-RTX's builder logs, in the form of the engine inspector's JSON.

The inspector itself needs a GPU that can load the engine; the builder says the same in its log.
"""

import json
import re
from typing import Any

_LAYER = re.compile(
    r"Name: (.*?), LayerType: (.*?), Inputs: \[(.*?)\], Constants: \[(.*?)\], "
    r"Outputs: \[(.*?)\], TacticName: (.*?), StreamId: \d+, Metadata: (.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\].*?Datatype: (\w+), Format")


def _tensors(text: str) -> list[dict[str, Any]]:
    return [
        {"Name": name, "Dimensions": [int(n) for n in dims.split(",") if n], "Datatype": kind}
        for name, dims, kind in _TENSOR.findall(text)
    ]


class Spy:
    """Stands for ``training.trt_network.Problems``, and keeps what is said of layers too."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, library: Any) -> Any:
        def begin(log: Any) -> None:
            library.ILogger.__init__(log)

        def listen(log: Any, level: Any, message: str) -> None:
            self.said.append(message)

        self.logger = type("Log", (library.ILogger,), {"__init__": begin, "log": listen})()
        return self

    def errors(self) -> list[str]:
        return []

    def layers(self) -> str:
        """Of the last engine that was built."""
        log = [message for message in self.said if message.startswith("Layers:")][-1]
        layers = [
            {
                "Name": name,
                "LayerType": kind,
                "Inputs": _tensors(inputs),
                "Constants": _tensors(constants),
                "Outputs": _tensors(outputs),
                "TacticName": tactic,
                "Metadata": metadata,
            }
            for name, kind, inputs, constants, outputs, tactic, metadata in _LAYER.findall(log)
        ]
        return json.dumps({"Layers": layers, "I/O Tensors": []})
