"""The prompts in MLflow's prompt registry: one per task, a version for every change of its words.

The prompts themselves stand in data/prompts.py. What is registered is for people to read and
compare: a model's version names the prompts that it was trained and measured with.
"""

from typing import Final

from data.prompts import TASKS, Task, prompt_template, prompt_version
from serving.registry.connection import Registry, locked, reported

_ABSENT: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


def register_prompts(registry: Registry) -> dict[str, str]:
    """Register every task's prompt unless its words are there already.

    Args:
        registry: where to.

    Returns:
        Tags for what uses them: ``prompt.<task>`` → ``name/version``.

    Raises:
        RegistryError: MLflow refused or went away; run again, it goes on.
    """
    with reported(registry, "register prompts"), locked(registry):
        return {f"prompt.{task}": _registered(registry, task) for task in TASKS}


def _registered(registry: Registry, task: Task) -> str:
    name, alias = f"matjip-{task}", f"words-{prompt_version(task)}"
    known = _version_of(registry, name, alias)
    if known is None:
        made = registry.client.register_prompt(
            name,
            [dict(message) for message in prompt_template(task)],
            commit_message=f"words {prompt_version(task)}",
            tags={"prompt_version": prompt_version(task), "task": task},
        )
        known = str(made.version)
        # Last, so that a run that was cut short registers anew rather than naming half a prompt.
        registry.client.set_prompt_alias(name, alias, int(known))
    return f"{name}/{known}"


def _version_of(registry: Registry, name: str, alias: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        found = registry.client.get_prompt_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
    return None if found is None else str(found.version)
