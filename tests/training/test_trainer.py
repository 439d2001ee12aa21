import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.batches import Batch
from training.trainer import PretrainableElectra, masked_token_loss, without_dropout

SCRIPT = Path(__file__).with_name("stage_to_kill.py")
STAGE = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, list[Batch]]:
    """The weights and the batches of a run that nobody killed."""
    batches: list[Batch] = []
    stage = STAGE.a_stage(tmp_path_factory.mktemp("whole"), seen=batches.append, average_decay=0.9)
    stage.run()
    return weights(stage.model), batches


def checkpoints(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "a-stage").iterdir())


def test_a_killed_stage_goes_on_from_its_checkpoint(tmp_path, whole_run, capfd):
    final, batches = whole_run
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line == "waiting\n"), None)
        process.kill()
    assert said is not None, capfd.readouterr().err
    assert process.returncode == -9
    assert checkpoints(tmp_path) == [f"checkpoint-{STAGE.SAVE_EVERY}"]

    seen: list[Batch] = []
    stage = STAGE.a_stage(tmp_path, seen=seen.append, average_decay=0.9)
    stage.run()
    assert len(seen) == len(batches) - STAGE.SAVE_EVERY
    assert f"a stage: step 25/{len(batches)} loss" in capfd.readouterr().out
    for resumed, first in zip(seen, batches[STAGE.SAVE_EVERY :], strict=True):
        assert torch.equal(resumed["input_ids"], first["input_ids"])
    torch.testing.assert_close(weights(stage.model), final, atol=1e-4, rtol=0)


def test_a_stage_that_was_finished_is_not_run_again(tmp_path, whole_run):
    first = STAGE.a_stage(tmp_path, average_decay=0.9)
    first.run()
    seen: list[Batch] = []
    again = STAGE.a_stage(tmp_path, seen=seen.append, average_decay=0.9)
    again.run()
    assert seen == []
    torch.testing.assert_close(weights(again.model), whole_run[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("state", [None, "", '{"global_st'])
def test_a_checkpoint_cut_short_is_passed_over(tmp_path, whole_run, state):
    cut = tmp_path / "a-stage" / "checkpoint-4"
    cut.mkdir(parents=True)
    (cut / "model.safetensors").write_bytes(b"half")
    if state is not None:
        (cut / "trainer_state.json").write_text(state)
    seen: list[Batch] = []
    stage = STAGE.a_stage(tmp_path, seen=seen.append, epochs=1)
    stage.run()
    assert len(seen) == len(whole_run[1]) / STAGE.EPOCHS
    assert "checkpoint-4" not in checkpoints(tmp_path)


def test_training_lowers_the_loss_of_the_labels(tmp_path):
    losses: list[float] = []
    stage = STAGE.a_stage(tmp_path, epochs=12)
    inner = stage.loss

    def kept(model: PretrainableElectra, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = inner(model, batch)
        losses.append(loss.item())
        return loss

    stage.loss = kept
    curve = stage.run()
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert [step for step, _ in curve] == list(range(25, len(losses) + 1, 25))


def test_the_average_lags_behind_the_last_weights(tmp_path, whole_run):
    plain = STAGE.a_stage(tmp_path)
    plain.run()
    started = weights(STAGE.a_stage(tmp_path / "fresh").model)
    averaged, last = whole_run[0], weights(plain.model)
    assert 1e-3 < (averaged - last).norm() < (started - last).norm()


def test_the_sampled_masked_loss_is_finite_and_falls(tmp_path):
    losses: list[float] = []
    stage = STAGE.a_stage(tmp_path, masked=True, epochs=20)
    inner = stage.loss

    def kept(model: PretrainableElectra, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = inner(model, batch)
        losses.append(loss.item())
        return loss

    stage.loss = kept
    with without_dropout(stage.model):
        stage.run()
    assert torch.isfinite(torch.tensor(losses)).all()
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_batch_where_nothing_was_hidden_has_no_masked_loss(tmp_path):
    stage = STAGE.a_stage(tmp_path, masked=True)
    stage.collator.masked_share = 0.0
    loss = masked_token_loss(stage.model, stage.collator([0, 1, 2]))
    assert loss.item() == 0.0
    loss.backward()


def test_the_sampled_loss_is_the_full_one_when_all_tokens_are_hidden_alike(tmp_path):
    """With every token among the hidden ones and one frequency, the correction shifts all alike."""
    stage = STAGE.a_stage(tmp_path, masked=True)
    model = stage.model
    states = torch.randn(2, STAGE.VOCABULARY // 2, 16)
    batch = {
        "masked_ids": torch.arange(STAGE.VOCABULARY),
        "masked_positions": torch.arange(STAGE.VOCABULARY),
    }
    table = model.model.electra.embeddings.word_embeddings.weight
    scores = model.masked_head(states.reshape(-1, 16)) @ table.T + model.masked_bias
    full = nn.functional.cross_entropy(scores, batch["masked_ids"])
    torch.testing.assert_close(model.masked_loss(states, batch), full)


def test_windows_of_a_review_are_averaged_as_serving_averages_them(tmp_path):
    stage = STAGE.a_stage(tmp_path)
    stage.tokens.ids[1] = [5 + i % 30 for i in range(50)]
    batch = stage.collator([0, 1, 2])
    model = stage.model.eval()
    each = model.model(batch["input_ids"], batch["attention_mask"])
    merged = model.review_logits(model.states(batch), batch)
    assert len(each[0]) > 3
    for one, windows in zip(merged, each, strict=True):
        own = batch["text_index"] == 1
        shares = batch["window_weights"][own].view(-1, *([1] * (windows.ndim - 1)))
        torch.testing.assert_close(one[1], (windows[own] * shares).sum(0), atol=1e-5, rtol=0)


def test_dropout_comes_back_also_after_a_failure():
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.7)))

    def rates() -> list[float]:
        return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]

    with without_dropout(model):
        assert rates() == [0.0, 0.0]
    assert rates() == [0.3, 0.7]
    with pytest.raises(RuntimeError, match="stop"), without_dropout(model):
        raise RuntimeError("stop")
    assert rates() == [0.3, 0.7]
