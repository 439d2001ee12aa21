import importlib
import itertools
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
NAMES = ("language_batches", "language_report", "language_training", "random_7b")


@pytest.fixture(scope="module")
def bench():
    """The bench's modules; its folder is no installed package."""
    sys.path.insert(0, str(ROOT))
    yield SimpleNamespace(**{name: importlib.import_module(f"bench.{name}") for name in NAMES})
    sys.path.remove(str(ROOT))


def seeded(seed):
    return Random(seed)  # noqa: S311  # no secret: repeatable inputs


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench.language_training", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_why_and_ends_with_two():
    done = run()
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr
    assert "--toy" in done.stderr
    assert done.stdout == ""


def test_the_toy_goes_the_whole_way(bench, tmp_path, capsys):
    out = tmp_path / "table.md"
    status = bench.language_training.main(
        [
            "--toy",
            *("--positions", "1024", "--sequence", "1024", "--warmup", "1", "--rank", "2"),
            *("--peak-tflops", "0.5", "--out", str(out)),
        ]
    )
    assert status == 0
    text = out.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(("| bf16", "| nf4"))
    ]
    assert [row[:2] for row in rows] == [
        ["bf16", "padded"],
        ["bf16", "packed"],
        ["nf4", "padded"],
        ["nf4", "packed"],
    ]
    for row in rows:
        assert float(row[2].replace(",", "")) > 0
        assert 0 <= float(row[3].rstrip("%")) < 60
        assert float(row[7].rstrip("%")) > float(row[8].rstrip("%")) > 0
    assert rows[0][3] == rows[2][3]
    assert "20 steps after 1" in text
    assert "mean 283, longest 787" in text
    assert "| nf4 | packed |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "19"], "time 20 or more"),
        (["--warmup", "0"], "after 1"),
        (["--sequence", "512"], "longest example"),
        (["--positions", "1024", "--sequence", "2048"], "at least a sequence"),
        (["--bases", "int8"], "invalid choice"),
    ],
)
def test_options_that_measure_nothing_are_refused(bench, capsys, arguments, said):
    with pytest.raises(SystemExit) as refused:
        bench.language_training.parse_arguments(arguments)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_not_installed_says_so_in_its_rows(bench, monkeypatch):
    module = bench.language_training
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    given = module.parse_arguments(["--toy", "--bases", "nf4"])
    rows = list(module.results(given, torch.device("cpu")))
    assert [row.failed for row in rows] == ["bitsandbytes is not installed"] * 2
    assert "| nf4 | padded | bitsandbytes is not installed | –" in module.table(rows, 1.0)


def test_what_does_not_fit_says_so_and_the_rest_goes_on(bench, monkeypatch):
    module = bench.language_training

    def measure(model, base, batching, given, device):
        if base == "bf16" and batching == "packed":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")
        return module.Result(base, batching, tokens=1, positions=1, steps_ms=(1.0,))

    monkeypatch.setattr(module, "measure", measure)
    rows = list(module.results(module.parse_arguments(["--toy"]), torch.device("cpu")))
    assert [row.failed for row in rows] == [None, "CUDA out of memory.", None, None]


def test_lengths_are_those_of_the_targets(bench):
    batches = bench.language_batches
    lengths = sorted(itertools.islice(batches.draw_lengths(seeded(1), batches.QUANTILES), 20_000))
    assert lengths[0] >= 164
    assert lengths[-1] <= 787
    assert lengths[10_000] == pytest.approx(228, abs=3)
    assert lengths[18_000] == pytest.approx(493, abs=12)
    assert sum(lengths) / len(lengths) == pytest.approx(283, rel=0.02)


def made(bench, kind, **changes):
    batches = bench.language_batches
    given = {"count": 6, "positions": 2048, "vocabulary": 100} | changes
    lengths = batches.draw_lengths(seeded(2), batches.QUANTILES)
    return getattr(batches, f"{kind}_batches")(seeded(3), lengths, **given)


def test_padded_rows_are_padded_to_their_longest(bench):
    found = made(bench, "padded")
    assert len(found) == 6
    for batch in found:
        mask, ids = batch.inputs["attention_mask"], batch.inputs["input_ids"]
        assert mask.sum(1).tolist() == list(batch.lengths)
        assert ids.shape == (len(batch.lengths), max(batch.lengths))
        assert batch.positions == ids.numel() <= 2048
        learnt = (batch.inputs["labels"] != -100).sum(1)
        assert learnt.tolist() == [max(1, round(0.35 * length)) for length in batch.lengths]
        assert ((batch.inputs["labels"] == -100) | (batch.inputs["labels"] == ids)).all()
        assert not ((mask == 0) & (batch.inputs["labels"] != -100)).any()


def test_packed_sequences_are_fuller_and_learn_as_much(bench):
    found = made(bench, "packed", sequence=1024)
    assert len(found) == 6
    for batch in found:
        ids, positions = batch.inputs["input_ids"], batch.inputs["position_ids"]
        assert ids.shape == positions.shape == (2, 1024)
        starts = (positions == 0).sum().item()
        assert starts - len(batch.lengths) in {0, 1, 2}  # a sequence may end in padding
        learnt = (batch.inputs["labels"] != -100).sum().item()
        assert learnt == sum(max(1, round(0.35 * length)) for length in batch.lengths)
    padded = made(bench, "padded")
    full, loose = (
        sum(batch.tokens for batch in each) / sum(batch.positions for batch in each)
        for each in (found, padded)
    )
    assert full > 0.9 > loose


def toy(bench, base, **changes):
    given = {"rank": 2, "attention": "sdpa", "checkpointing": False, "seed": 0} | changes
    module = bench.random_7b
    return module.build(base, module.TOY, torch.device("cpu"), **given)


def test_packed_examples_do_not_see_one_another(bench):
    [batch, *_] = made(bench, "packed", sequence=1024, positions=1024)
    model = toy(bench, "bf16").eval().float()
    inputs = {key: batch.inputs[key] for key in ("input_ids", "position_ids")}
    first = int((inputs["position_ids"][0, 1:] == 0).nonzero()[0]) + 1
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, :first] = (other["input_ids"][0, :first] + 1) % 100
    with torch.inference_mode():
        before, after = (model(**each).logits[0] for each in (inputs, other))
    torch.testing.assert_close(before[first:], after[first:])
    assert not torch.allclose(before[:first], after[:first])


def test_nf4_holds_all_but_the_head_and_learns(bench):
    from bitsandbytes.nn import Linear4bit

    model = toy(bench, "nf4", checkpointing=True)
    held = [each for each in model.modules() if isinstance(each, Linear4bit)]
    assert len(held) == 2 * 7
    assert {each.weight.dtype for each in held} == {torch.uint8}
    assert all(each.weight.quant_state.nested for each in held)
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    plain = toy(bench, "bf16")
    weights = bench.random_7b.matrix_weights
    # q, k, v, o, gate, up and down of two layers, and the head
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128
    assert weights(model) == weights(plain) == 2 * layer + 64 * 512
    step = bench.language_training.stepper(model, torch.device("cpu"))
    [batch, *_] = made(bench, "padded")
    losses = [float(step(batch)) for _ in range(3)]
    assert losses[2] < losses[0]


def test_seven_thousand_million_weights(bench):
    from transformers import AutoModelForCausalLM, Qwen2Config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            Qwen2Config(**bench.random_7b.QWEN_7B, tie_word_embeddings=False)
        )
    assert model.num_parameters() == 7_615_616_512  # as Qwen2.5-7B has them
    assert bench.random_7b.matrix_weights(model) == pytest.approx(7.07e9, rel=0.001)


def test_work_is_counted_as_the_rule_says(bench):
    batches = bench.language_batches
    batch = batches.Batch({}, (10, 20), 64)
    rule = {"weights": 1000, "attention_width": 3}
    assert batches.useful_flops(batch, per_weight=6, **rule) == 6 * 1000 * 30 + 6 * 3 * 500
    assert batches.useful_flops(batch, per_weight=4, **rule) == 4 * 1000 * 30 + 6 * 3 * 500


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX A1000", None),
        ("Tesla T4", None),
    ],
)
def test_the_peak_is_the_devices_own(bench, name, peak):
    assert bench.language_report.peak_tflops(name) == peak


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_is_measured(tmp_path):
    out = tmp_path / "table.md"
    done = run("--bases", "bf16", "--positions", "4096", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "| bf16 | packed |" in out.read_text(encoding="utf-8")
