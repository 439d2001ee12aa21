"""May the candidate go on?"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def gate_model(
    evaluation: Input[Dataset],
    policy: str,
    recipe: str,
    inputs: str,
    gate: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Compare candidate with champion and INT8 with its parent; returns the gate's digest.

    The verdict (pass, fail or inconclusive) is in gate.json; the step itself succeeds.
    """
    import shutil
    from pathlib import Path

    from data.settings import parse_settings
    from training.delivery import gate_candidate
    from training.gate import GatePolicy
    from training.recipe import parse_recipe

    manifest = gate_candidate(
        Path(evaluation.path),
        Path(gate.path),
        policy=parse_settings(GatePolicy, policy, where="gate policy"),
        recipe=parse_recipe(recipe),
    )
    shutil.copyfile(Path(gate.path) / "gate.md", summary.path)
    verdict = manifest.facts["verdict"]
    gate.metadata.update({"digest": manifest.digest, "inputs": inputs, "verdict": verdict})
    return manifest.digest
