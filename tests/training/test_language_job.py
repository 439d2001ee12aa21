import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from safetensors.torch import load_file

from data.manifest import read_manifest
from serving.language_folder import ADAPTER_KIND
from serving.language_model import load_language_model
from training.language_job import main, parse_arguments

RECIPE = """
name: toy
threads: 1
lora: {rank: 2, alpha: 4}
tuning: {quantized_base: none, epochs: 0.1, batch_examples: 4, max_tokens: 1024}
"""


@pytest.fixture
def arguments(tmp_path, tiny_base, language_targets):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE)
    return [
        f"--targets={language_targets}",
        f"--base={tiny_base}",
        f"--recipe={recipe}",
        f"--out={tmp_path / 'adapter'}",
        f"--checkpoints={tmp_path / 'checkpoints'}",
    ]


def test_it_trains_an_adapter_and_says_which(tmp_path, arguments, capsys):
    assert main(arguments) == 0
    manifest = read_manifest(tmp_path / "adapter", ADAPTER_KIND)
    assert manifest.facts["recipe"] == "toy"
    assert manifest.digest in capsys.readouterr().out


def test_a_refusal_is_printed_and_fails(arguments, tiny_base, capsys):
    # A base where the targets should be.
    assert main([f"--targets={tiny_base}", *arguments[1:]]) == 1
    said = capsys.readouterr()
    assert "process 0: " in said.err
    assert "expected 'targets'" in said.err
    assert "adapter" not in said.out


def test_what_is_missing_is_named(capsys):
    with pytest.raises(SystemExit) as refused:
        parse_arguments(["--targets=x"])
    assert refused.value.code == 2
    assert "--base, --recipe, --out, --checkpoints" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_that_share_the_weights_leave_one_whole_adapter(
    tmp_path, arguments, tiny_base
):
    (tmp_path / "toy.yaml").write_text(
        f"{RECIPE.replace('none,', 'none, gradient_checkpointing: true,')}\nprecision: bfloat16\n"
    )
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            f"--config_file={resources.files('training') / 'launch' / 'fsdp.yaml'}",
            *("--num_processes=2", "--main_process_port=0"),
            "--fsdp_transformer_layer_cls_to_wrap=Qwen3DecoderLayer",
            str(Path(__file__).parent / "sharded_job.py"),
            *arguments,
        ],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr[-2000:]
    manifest = read_manifest(tmp_path / "adapter", ADAPTER_KIND)
    assert manifest.digest in launched.stdout
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7  # A and B of seven matrices in two layers
    learnt = [weight for name, weight in weights.items() if "lora_B" in name]
    assert all(weight.isfinite().all() and weight.any() for weight in learnt)
    load_language_model(tiny_base, adapter=tmp_path / "adapter")
