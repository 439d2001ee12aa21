"""Rows in 8 bits keep their values within half a step, compiled or not."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from serving.engines.bert_family import Activation
from serving.engines.int8_epilogues import ZERO_POINT, Epilogues, make_epilogues

HIDDEN, INNER = 32, 64


@pytest.fixture(scope="module")
def compiled() -> Epilogues:
    if not torch.cpu._is_vnni_supported():
        pytest.skip("INT8 is for CPUs with AVX512-VNNI")
    return make_epilogues(hidden=HIDDEN, inner=INNER, activation="gelu", eps=1e-12, threads=1)


@pytest.fixture(scope="module")
def uncompiled() -> Iterator[Epilogues]:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    with fresh_cache(), config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        yield make_epilogues.__wrapped__(
            hidden=HIDDEN, inner=INNER, activation="gelu", eps=1e-12, threads=1
        )


def _values(codes: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
    return scale * (codes.float() - ZERO_POINT) + centre


def _product(rows: int, out: int) -> tuple[Tensor, ...]:
    torch.manual_seed(rows)
    product = (torch.randn(rows, out) * 40).bfloat16()
    return product, torch.rand(rows, 1) / 20, torch.randn(rows, 1), torch.rand(out), torch.rand(out)


def _value(product: Tensor, scale: Tensor, centre: Tensor, sums: Tensor, bias: Tensor) -> Tensor:
    return product.float() * scale + centre * sums + bias


def _peak(*parts: Tensor) -> Tensor:
    return _value(*parts).amax(1, keepdim=True)


@pytest.mark.parametrize("rows", [1, 2, 37])
def test_codes_are_within_half_a_step(compiled: Epilogues, rows: int) -> None:
    torch.manual_seed(0)
    values = (torch.randn(rows, HIDDEN) * torch.logspace(-3, 3, rows)[:, None]).bfloat16()
    values[:, 3] *= 20

    codes, scale, centre = compiled.encode(values)

    assert codes.dtype == torch.uint8
    off = (_values(codes, scale, centre) - values.float()).abs()
    assert (off <= scale * 0.502).all()
    assert torch.equal(codes.amin(1), torch.zeros(rows, dtype=torch.uint8))
    assert torch.equal(codes.amax(1), torch.full((rows,), 255, dtype=torch.uint8))


def test_a_row_of_equal_values_is_kept(compiled: Epilogues) -> None:
    values = torch.tensor([0.0, 1.5]).bfloat16()[:, None].expand(2, HIDDEN).contiguous()

    codes, scale, centre = compiled.encode(values)

    torch.testing.assert_close(_values(codes, scale, centre), values.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_activations_are_torchs_within_a_step(activation: Activation) -> None:
    from serving.engines.int8_epilogues import _activate_as

    exact = {
        "gelu": functional.gelu,
        "gelu_tanh": lambda values: functional.gelu(values, approximate="tanh"),
        "relu": functional.relu,
    }[activation]
    for parts in (_product(20, INNER), _product(3, 2048)):
        codes, scale, centre = _activate_as(activation)(*parts, _peak(*parts))

        off = (_values(codes, scale, centre) - exact(_value(*parts))).abs()
        # 2.3e-4: how far the polynomials are off.
        assert (off <= scale * 0.502 + 2.3e-4).all()
        assert scale.min() > 0


def test_a_row_that_an_activation_silences_is_kept(compiled: Epilogues) -> None:
    product, scale, centre, sums, bias = _product(4, INNER)
    parts = (-product.abs() - 40, scale, centre * 0, sums, bias * 0)

    codes, scale, centre = compiled.activate(*parts, compiled.peak(*parts))

    off = (_values(codes, scale, centre) - functional.gelu(_value(*parts))).abs()
    assert off.max() < 1e-3


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_compiled_functions_answer_like_the_plain_ones(
    compiled: Epilogues, uncompiled: Epilogues, rows: int
) -> None:
    residual = torch.randn(rows, HIDDEN).bfloat16()
    weight, shift = torch.rand(HIDDEN), torch.rand(HIDDEN)
    inner = _product(rows, INNER)
    calls = {
        "decode": _product(rows, 3 * HIDDEN),
        "peak": inner,
        "activate": (*inner, _peak(*inner)),
        "normalise": (*_product(rows, HIDDEN), residual, weight, shift),
    }
    for name, arguments in calls.items():
        ours = getattr(compiled, name)(*arguments)
        plain = getattr(uncompiled, name)(*arguments)
        if name in {"decode", "peak"}:
            torch.testing.assert_close(ours, plain)
            continue
        torch.testing.assert_close(
            _values(*ours[-3:]), _values(*plain[-3:]), atol=float(plain[-2].max()) * 1.01, rtol=0
        )


def test_a_machine_without_a_compiler_is_told_so(
    uncompiled: Epilogues, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    with (
        caplog.at_level(logging.WARNING),
        fresh_cache(),
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
    ):
        plain = make_epilogues.__wrapped__(
            hidden=HIDDEN, inner=INNER, activation="gelu", eps=1e-5, threads=1
        )

    assert "uncompiled" in caplog.text
    assert "install a C++ compiler" in caplog.text
    assert plain.encode is uncompiled.encode
