"""8-bit products: exact sums of rounded numbers, on any CPU and in any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relisten.core.types import UsageError
from relisten.lm.backend import int8
from relisten.lm.backend.int8 import Int8Linear, adds_in_16_bits, hadamard, to_int8
from relisten.lm.scorer import ScoringInput
from relisten.tasks.loading import load_rescorer
from tiny_models import tiny_causal_lm
from tiny_world import tiny_text_lm

pytestmark = pytest.mark.skipif(not int8.is_available(), reason="this torch has no oneDNN")
TEXTS = ("the cat sat", "a cat sat", "the cat, sat on it")


def rounded_product(x, weight, bias):
    """The same with the rounding written out: 32 numbers rotated together, 127 for the largest x of
    a row, and for the largest weight, or the largest sum of two where the CPU adds in 16 bits."""
    rotation = hadamard(96)
    assert rotation.shape == (32, 32)
    x, weight = ((v.view(-1, 32) @ rotation).view(v.shape) for v in (x, weight))
    x_step = x.abs().amax(1, keepdim=True) / 127
    most = weight.abs().amax(1)
    if adds_in_16_bits():
        most = torch.maximum(most, (weight[:, ::2] + weight[:, 1::2]).abs().amax(1))
    w_step = most / 127
    sums = (x / x_step).round().double() @ (weight / w_step[:, None]).round().double().T
    return sums * x_step * w_step + bias


def test_the_product_is_that_of_the_rounded_numbers():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(7, 96), torch.randn(33, 96), torch.randn(33)
    expected = rounded_product(x, weight, bias)
    actual = Int8Linear(weight, bias)(x)
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)
    off = (actual - (x @ weight.T + bias)).norm() / actual.norm()
    assert 1e-3 < off < 0.03


def test_an_outlier_leaves_the_other_inputs_their_precision():
    """One input is a hundred times the others: without a rotation, the others become 0 or 1."""
    torch.manual_seed(3)
    x, weight = torch.randn(9, 256), torch.randn(40, 256)
    x[:, 17] *= 100
    weight[:, 17] = 0  # so that the others count
    off = (Int8Linear(weight)(x) - x @ weight.T).norm() / (x @ weight.T).norm()
    step = x.abs().amax(1, keepdim=True) / 127
    plain = ((x / step).round() * step @ weight.T - x @ weight.T).norm() / (x @ weight.T).norm()
    assert off < plain / 2


@pytest.mark.parametrize("n", [1, 6, 64, 576, 1536])
def test_a_rotation_changes_no_product(n):
    rotation = hadamard(n)
    assert n % len(rotation) == 0
    assert len(rotation) == min(64, n & -n)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)))


@pytest.mark.parametrize("signs", [(1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])
@pytest.mark.parametrize("small", [0.0, 0.3, 1.0])
def test_the_largest_numbers_do_not_overflow(signs, small):
    """Weights a b a b …, all inputs at either end of their range, once they are rotated."""
    pattern = torch.tensor([signs[0], small * signs[1]]).repeat(32)
    weight = pattern.expand(5, 64) @ hadamard(64)
    for sign in (1.0, -1.0):
        x = torch.full((2, 64), 3.0 * sign) @ hadamard(64)
        expected = 3.0 * sign * pattern.sum().expand(2, 5)
        torch.testing.assert_close(Int8Linear(weight)(x), expected, atol=0.7, rtol=0.01)


@pytest.mark.parametrize("n_in", [64, 576])
def test_a_row_does_not_depend_on_its_neighbours(n_in):
    """Bit by bit, also of a single row, for which MKL has a kernel of its own."""
    torch.manual_seed(1)
    layer, x = Int8Linear(torch.randn(24, n_in)), torch.randn(2, 3, n_in)
    alone = layer(x[1, 2])
    x[0] *= 1000
    assert torch.equal(layer(x)[1, 2], alone)
    for n_rows in (1, 2, 17):
        others = torch.randn(n_rows, n_in)
        assert torch.equal(layer(torch.cat([others, x[1, 2:]]))[n_rows], alone)


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
    monkeypatch.setattr("relisten.lm.backend.int8.is_available", lambda: False)
    with pytest.raises(UsageError, match="without oneDNN; score in float32"):
        load_rescorer(folder, "cpu", "int8")
