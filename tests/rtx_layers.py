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
    """Makes loggers, as ``listener`` does, and keeps what they are told of layers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def listener(self, library: Any) -> Any:
        def begin(log: Any) -> None:
            library.ILogger.__init__(log)
            log.lines = []

        def listen(log: Any, level: Any, message: str) -> None:
            self.said.append(message)

        return type("Log", (library.ILogger,), {"__init__": begin, "log": listen})()

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
