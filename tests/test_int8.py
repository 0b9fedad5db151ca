"""8-bit products: exact sums of rounded numbers, whatever the CPU and whatever stands beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relisten.core.types import UsageError
from relisten.lm import int8
from relisten.lm.int8 import Int8Linear, to_int8
from relisten.lm.scorer import ScoringInput
from relisten.tasks.loading import load_rescorer
from tiny_models import tiny_causal_lm
from tiny_world import tiny_text_lm

pytestmark = pytest.mark.skipif(not int8.is_available(), reason="this torch has no oneDNN")
TEXTS = ("the cat sat", "a cat sat", "the cat, sat on it")


def rounded_product(x, weight, bias):
    """The same with the rounding written out, in float64: x to 127 steps a row, weights to 63."""
    x_step = x.double().abs().amax(1, keepdim=True) / 127
    w_step = weight.double().abs().amax(1) / 63
    sums = (x / x_step).round() @ (weight / w_step[:, None]).round().T
    return sums * x_step * w_step + bias


def test_the_product_is_that_of_the_rounded_numbers():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(7, 96), torch.randn(33, 96), torch.randn(33)
    expected = rounded_product(x, weight, bias)
    actual = Int8Linear(weight, bias)(x)
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)
    off = (actual - (x @ weight.T + bias)).norm() / actual.norm()
    assert 1e-3 < off < 0.03


def test_the_largest_numbers_do_not_overflow():
    """Of 8-bit weights, pairs of products overflow 16 bits where the CPU adds them so."""
    for sign in (1.0, -1.0):
        x, weight = torch.full((2, 64), 3.0), torch.full((5, 64), sign * 2.0)
        torch.testing.assert_close(Int8Linear(weight)(x), torch.full((2, 5), sign * 384.0))


def test_a_row_does_not_depend_on_its_neighbours():
    torch.manual_seed(1)
    layer, x = Int8Linear(torch.randn(24, 64)), torch.randn(2, 3, 64)
    alone = layer(x[1, 2])
    x[0] *= 1000
    assert torch.equal(layer(x)[1, 2], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_types_and_zeros(dtype):
    layer = Int8Linear(torch.ones(4, 8), torch.ones(4))
    assert layer(torch.zeros(2, 3, 8, dtype=dtype)).tolist() == [[[1.0] * 4] * 3] * 2
    assert layer(torch.ones(8, dtype=dtype)).dtype == dtype
    assert layer(torch.zeros(0, 8, dtype=dtype)).shape == (0, 4)


def test_every_linear_layer_is_replaced_and_the_logits_stay_near():
    causal = tiny_causal_lm("qwen2")
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = causal(ids).logits
        to_int8(causal)
        assert not any(type(module) is nn.Linear for module in causal.modules())
        actual = causal(ids).logits
    assert 0 < (actual - expected).norm() / expected.norm() < 0.05


def test_a_rescorer_in_int8_scores_nearly_the_same(tmp_path):
    folder = str(tiny_text_lm(tmp_path))
    exact, rough = (load_rescorer(folder, "cpu", dtype) for dtype in ("float32", "int8"))
    together = rough.score([ScoringInput(TEXTS), ScoringInput(TEXTS[:1])], "text")
    assert together[0] == pytest.approx(exact.score([ScoringInput(TEXTS)], "text")[0], abs=0.1)
    assert together[0] != pytest.approx(exact.score([ScoringInput(TEXTS)], "text")[0], abs=1e-5)
    assert together[1][0] == pytest.approx(together[0][0], abs=1e-4)


def test_int8_elsewhere_is_refused(tmp_path, monkeypatch):
    folder = str(tiny_text_lm(tmp_path))
    with pytest.raises(UsageError, match="has it on the CPU, not on cuda"):
        load_rescorer(folder, "cuda", "int8")
    monkeypatch.setattr("relisten.lm.int8.is_available", lambda: False)
    with pytest.raises(UsageError, match="without oneDNN; score in float32"):
        load_rescorer(folder, "cpu", "int8")
