"""Linear layers through oneDNN give the values of torch's own, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from relisten.lm.backend import linear
from relisten.lm.backend.linear import OneDNNLinear
from tiny_models import tiny_causal_lm

HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Calls(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")
@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (2, 3, 5)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("has_avx512", [False, True])
def test_values_and_gradients_are_those_of_torch(shape, with_bias, has_avx512, monkeypatch):
    """oneDNN runs the product, and its gradients where the CPU has AVX-512."""
    monkeypatch.setattr(linear, "_has_avx512", lambda: has_avx512)
    torch.manual_seed(0)
    leaves = [torch.randn(s, requires_grad=True) for s in (shape, (4, 5), (4,))]
    inputs = (*leaves[:2], leaves[2] if with_bias else None)
    expected = nn.functional.linear(*inputs)
    downstream = torch.randn_like(expected)
    wanted = leaves if with_bias else leaves[:2]
    expected_grads = torch.autograd.grad(expected, wanted, downstream)
    with OneDNNLinear(), Calls() as calls:
        actual = nn.functional.linear(*inputs)
    assert any("mkldnn" in name for name in calls.names)
    torch.testing.assert_close(actual, expected)
    with Calls() as calls:
        grads = torch.autograd.grad(actual, wanted, downstream)
    assert any("mkldnn" in name for name in calls.names) == has_avx512
    for a, e in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, e)


def test_a_model_gives_the_same_logits():
    model = tiny_causal_lm("qwen2")
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = model(ids).logits
        with OneDNNLinear():
            torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_torch(dtype):
    x, weight = torch.randn(3, 5, dtype=dtype), torch.randn(4, 5, dtype=dtype)
    expected = nn.functional.linear(x, weight)
    with OneDNNLinear():
        assert torch.equal(nn.functional.linear(x, weight), expected)


def test_empty_and_single_rows():
    weight = torch.ones(4, 5)
    with OneDNNLinear():
        assert nn.functional.linear(torch.ones(0, 5), weight).shape == (0, 4)
        assert nn.functional.linear(torch.ones(5), weight).tolist() == [5.0] * 4
        assert nn.functional.linear(input=torch.ones(1, 5), weight=weight).tolist() == [[5.0] * 4]
