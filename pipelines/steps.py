"""One step of a graph by itself, on a run's artifacts, through the cluster's component."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from data.errors import SettingsError
from pipelines.local import RunRecord
from pipelines.make_targets import make_target

ARTIFACT_CLASSES: Final = {"system.Dataset": dsl.Dataset, "system.Model": dsl.Model}


def _plain(value: Any) -> Any:
    """A protobuf value as a Python one; whole numbers as int."""
    if hasattr(value, "WhichOneof"):
        value = getattr(value, value.WhichOneof("kind"))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _earlier(run: RunRecord, producer: str, output: str) -> Any:
    record = run.step(producer)
    if record is None or output not in record.outputs:
        raise SettingsError(
            f"step {producer!r} has not run in {run.run_id!r}; run `make {make_target(producer)}` "
            "first, or name another run with RUN=…"
        )
    return record.outputs[output]


def _parameter(key: str, source: Any, run: RunRecord, defaults: Mapping[str, Any]) -> Any:
    """The value of a step's parameter of that name, as the graph wires it."""
    kind = source.WhichOneof("kind")
    if kind == "component_input_parameter":
        name = source.component_input_parameter
        if name not in run.arguments and name not in defaults:
            raise SettingsError(
                f"run {run.run_id!r} has no argument {name!r}; pass ARGS='--set {key}=…', or name "
                "another run with RUN=…"
            )
        return run.arguments.get(name, defaults.get(name))
    if kind == "task_output_parameter":
        wired = source.task_output_parameter
        return _earlier(run, wired.producer_task, wired.output_parameter_key)
    return _plain(source.runtime_value.constant)


def _parameters(
    graph: GraphComponent, step: str, run: RunRecord, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    root = graph.pipeline_spec.root
    defaults = {
        name: _plain(parameter.default_value)
        for name, parameter in root.input_definitions.parameters.items()
        if parameter.HasField("default_value")
    }
    values = {
        name: overrides[name] if name in overrides else _parameter(name, source, run, defaults)
        for name, source in root.dag.tasks[step].inputs.parameters.items()
    }
    # KFP wires an f-string through hidden parameters that stand as placeholders in its text.
    hidden = {
        f"{{{{$.inputs.parameters['{name}']}}}}": str(values.pop(name))
        for name in list(values)
        if name.startswith("pipelinechannel--")
    }
    for name, value in values.items():
        for placeholder, text in hidden.items():
            if isinstance(value, str):
                value = value.replace(placeholder, text)  # noqa: PLW2901  # folded one by one
        values[name] = value
    return values


def _artifacts(graph: GraphComponent, step: str, run: RunRecord) -> dict[str, Path]:
    found = {}
    for name, source in graph.pipeline_spec.root.dag.tasks[step].inputs.artifacts.items():
        wired = source.task_output_artifact
        if wired.producer_task.startswith("importer"):
            found[name] = Path(run.arguments[name])
        else:
            found[name] = Path(_earlier(run, wired.producer_task, wired.output_artifact_key)["uri"])
    return found


def one_step(
    graph: GraphComponent, step: str, run: RunRecord, overrides: Mapping[str, Any]
) -> GraphComponent:
    """A graph of one step, wired to a run's artifacts as the whole graph wires it.

    Raises:
        SettingsError: the graph has no such step, a step before it has not run, or an override
            names no parameter of the step.
    """
    spec = graph.pipeline_spec
    if step not in spec.root.dag.tasks:
        raise SettingsError(f"no step {step!r}; the steps are {sorted(spec.root.dag.tasks)}")
    parameters = _parameters(graph, step, run, overrides)
    artifacts = _artifacts(graph, step, run)
    if unknown := set(overrides) - set(parameters):
        raise SettingsError(
            f"`make {make_target(step)}` has no setting {sorted(unknown)!r}; it has "
            f"{sorted(parameters)}"
        )
    name = step.replace("-", "_")
    component = getattr(importlib.import_module(f"components.{name}"), name)
    types = component.component_spec.inputs
    # --set version=2 is read as a number, and versions are text.
    values = {
        key: str(value) if types[key].type == "String" and isinstance(value, int) else value
        for key, value in parameters.items()
    }
    executor = spec.components[spec.root.dag.tasks[step].component_ref.name].executor_label
    image = spec.deployment_spec["executors"][executor]["container"]["image"]
    classes = {
        key: ARTIFACT_CLASSES[definition.type.split("@")[0]]
        for key, definition in types.items()
        if definition.type.startswith("system.")
    }

    @dsl.pipeline(name=f"only-{step}")
    def single() -> None:
        imported = {
            key: dsl.importer(
                artifact_uri=str(path), artifact_class=classes[key], reimport=False
            ).output
            for key, path in artifacts.items()
        }
        component(**values, **imported).set_container_image(image)

    return single
