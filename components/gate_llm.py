"""May this language model go on? Paired against its parent and the null baselines."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def gate_llm(
    evaluation: Input[Dataset],
    policy: str,
    inputs: str,
    gate: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Judge; returns the digest. ``policy`` is YAML text; empty, the defaults."""
    import shutil
    from pathlib import Path

    from data.settings import parse_settings
    from training.evaluation.language.comparisons import LanguageGatePolicy
    from training.language_delivery import gate_language_candidate

    manifest = gate_language_candidate(
        Path(evaluation.path),
        Path(gate.path),
        policy=parse_settings(LanguageGatePolicy, policy, where="language gate policy"),
    )
    gate.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "verdict": manifest.facts["verdict"]}
    )
    shutil.copyfile(Path(gate.path) / "gate.md", summary.path)
    return manifest.digest
