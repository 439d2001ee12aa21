import numpy as np
import pytest

from bench.engines import (
    NAIVE,
    NAIVE_ROWS,
    PLANNED,
    TIMED,
    Pass,
    operations_per_token,
    padding_of,
    plans_of,
    run_interleaved,
    sample_of,
)
from serving.batching.planner import TOKEN_BUDGET


class Echo:
    name = "echo"
    batch_invariant = True
    computes_padding = True

    def __init__(self, calls):
        self.calls = calls

    def run(self, input_ids, attention_mask):
        self.calls.append((self, int(attention_mask.sum())))
        return {"embedding": np.zeros((len(input_ids), 2), np.float32)}


@pytest.fixture(scope="module")
def plans():
    lengths = np.random.default_rng(1).integers(4, 129, 300)
    return plans_of([[7] * int(length) for length in lengths], pad_id=0)


def test_both_plans_run_the_same_tokens(plans):
    tokens = {name: sum(int(m.sum()) for _, m in batches) for name, batches in plans.items()}
    assert tokens[NAIVE] == tokens[PLANNED]
    assert all(len(ids) <= NAIVE_ROWS for ids, _ in plans[NAIVE])
    assert all(ids.size <= TOKEN_BUDGET for ids, _ in plans[PLANNED])
    assert padding_of(plans[PLANNED]) < 1.1
    assert padding_of(plans[NAIVE]) > 1.5


def test_a_few_batches_stand_for_all(plans):
    for plan, count in TIMED.items():
        timed = sample_of(plans[plan], count)
        assert len(timed) == count
        assert padding_of(timed) == pytest.approx(padding_of(plans[plan]), rel=0.03)


def test_passes_take_turns_and_end_together(plans):
    calls = []
    passes = [Pass("echo", Echo(calls), name, plans[name]) for name in (NAIVE, PLANNED)]
    run_interleaved(passes, until=lambda: False)
    assert [len(each.batch_s) for each in passes] == [len(each.batches) for each in passes]
    naive = [number for number, call in enumerate(calls) if call[0] is passes[0].engine]
    assert max(np.diff(naive)) <= 2 * len(calls) / len(plans[NAIVE])
    assert naive[-1] >= len(calls) * 0.8


def test_half_is_run_whatever_the_time(plans):
    few = plans[NAIVE][:3]
    passes = [Pass("echo", Echo([]), name, plans[name]) for name in (NAIVE, PLANNED)]
    passes.append(Pass("echo", Echo([]), "few", few))
    run_interleaved(passes, until=lambda: True)
    for each in passes:
        count = len(each.batches)
        assert count / 2 <= len(each.batch_s) <= count / 2 + 1


def test_speed_counts_real_tokens():
    ids = np.ones((2, 10), np.int64)
    mask = np.asarray([[1] * 10, [1] * 4 + [0] * 6])
    measured = Pass("echo", Echo([]), NAIVE, [(ids, mask)])
    measured.step(0)
    measured.batch_s = [2.0]
    assert measured.tokens_per_s == 7.0


def test_operations_are_those_of_twelve_layers():
    assert operations_per_token() == pytest.approx(2 * 12 * 7_077_888)
