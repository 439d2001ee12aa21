import importlib.util

import numpy as np
import pytest
import torch

from data.errors import ArtifactError, EngineError
from serving.engines.tensor_rt import TensorRtEngine, compute_capability, load_tensorrt
from serving.engines.tensor_rt_plan import (
    PLAN_NAME,
    Plan,
    Profile,
    check_machine,
    engine_key,
    profiles_for,
    read_plan,
    smallest_profile,
)

WITHOUT = importlib.util.find_spec("tensorrt") is None
SHORT, LONG = Profile(batch=32, tokens=32), Profile(batch=8, tokens=128)
PLAN = Plan(
    precision="fp16",
    reason="there is no graph with Q/DQ",
    compute_capability="9.0",
    tensorrt_version="11.4.0",
    graph_sha256="ab" * 32,
    profiles=(SHORT, LONG),
    layers={"fp16": 9},
    int8_share=0.0,
)


def padded_share(profiles, lengths):
    """Padded over real tokens when every window goes to the shortest range that holds it."""
    tops = sorted(profile.tokens for profile in profiles)
    return sum(next(top for top in tops if top >= length) for length in lengths) / sum(lengths)


def test_profiles_follow_the_lengths_and_cover_all():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.4, 0.6, 2000), 3, 128).astype(np.int64)
    profiles = profiles_for(lengths, token_budget=1024, max_tokens=128)
    assert 2 <= len(profiles) <= 7
    assert profiles[-1].tokens == 128
    assert all(profile.batch == max(1, 1024 // profile.tokens) for profile in profiles)
    one = profiles_for(lengths, token_budget=1024, max_tokens=128, max_profiles=1)
    assert padded_share(profiles, lengths) < 1.25
    assert padded_share(one, lengths) > 2


def test_lengths_that_are_all_alike_need_one_profile():
    assert profiles_for([7] * 9, token_budget=70, max_tokens=7) == (Profile(batch=10, tokens=7),)


def test_few_distinct_lengths_are_met_exactly():
    found = profiles_for([4, 4, 90], token_budget=180, max_tokens=90, max_waste=0.0)
    assert [profile.tokens for profile in found] == [4, 90]


@pytest.mark.parametrize("lengths", [[], [129], [0]])
def test_lengths_that_cannot_be_are_refused(lengths):
    with pytest.raises(EngineError, match="max_tokens=128"):
        profiles_for(lengths, token_budget=1024, max_tokens=128)


def test_the_smallest_profile_that_fits_is_taken():
    small = Profile(batch=4, tokens=32)
    assert smallest_profile((LONG, small, SHORT), 3, 20) == 1
    assert smallest_profile((SHORT, LONG), 30, 32) == 0
    assert smallest_profile((SHORT, LONG), 1, 33) == 1


def test_a_batch_that_no_profile_holds_names_them():
    with pytest.raises(EngineError, match=r"\(32, 32\), \(8, 128\).*\(9, 100\)"):
        smallest_profile((SHORT, LONG), 9, 100)


def test_another_gpu_or_version_is_refused():
    check_machine(PLAN, compute_capability="9.0", tensorrt_version="11.4.0")
    with pytest.raises(EngineError, match=r"compute capability '9\.0' and this machine has '8\.9'"):
        check_machine(PLAN, compute_capability="8.9", tensorrt_version="11.4.0")
    with pytest.raises(EngineError, match=r"'11\.4\.0' and this machine has '11\.5\.0'"):
        check_machine(PLAN, compute_capability="9.0", tensorrt_version="11.5.0")


def test_the_key_names_all_that_an_engine_depends_on():
    parts = ("9.0", "11.4.0", "ab" * 32, (SHORT, LONG))
    assert PLAN.key == engine_key(*parts)
    assert PLAN.key.startswith("sm90-trt11.4.0-")
    others = [
        ("8.9", *parts[1:]),
        (parts[0], "11.5.0", *parts[2:]),
        (*parts[:2], "cd" * 32, parts[3]),
        (*parts[:3], (LONG, SHORT)),
    ]
    assert len({engine_key(*each) for each in [parts, *others]}) == 5


def test_a_plan_goes_to_a_folder_and_back(tmp_path):
    (tmp_path / PLAN_NAME).write_text(PLAN.model_dump_json())
    assert read_plan(tmp_path) == PLAN
    (tmp_path / PLAN_NAME).write_text("{}")
    with pytest.raises(ArtifactError, match="no TensorRT plan"):
        read_plan(tmp_path)


@pytest.mark.skipif(not WITHOUT, reason="TensorRT is installed here")
def test_without_the_library_the_extra_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"pip install '\.\[trt\]'"):
        load_tensorrt()
    (tmp_path / PLAN_NAME).write_text(PLAN.model_dump_json())
    with pytest.raises(EngineError, match=r"pip install '\.\[trt\]'"):
        TensorRtEngine(tmp_path, ["embedding"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so():
    with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
        compute_capability()
