"""Linear layers in 8-bit integers against float32, on the shapes of SmolLM2-135M.

    python benchmarks/int8.py [--rows 64 256 1024] [--model relisten-tiny]

Every installed engine takes float32 rows and gives float32 rows, rounding of the input included;
engines take turns, and the quickest repeat counts. `error` is the root mean square error over the
root mean square of the result, on normally distributed inputs. With --model, text scores of the
written lists in float32 and in int8 follow. The last line is one JSON object. onnxruntime (with
onnx) and openvino are compared where they are installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from relisten.io.nbest import load_nbest
from relisten.lm.backend.int8 import Int8Linear
from relisten.lm.backend.linear import OneDNNLinear
from relisten.lm.scorer import ScoringInput
from relisten.tasks.loading import load_rescorer

SHAPES = {(576, 576): 60, (192, 576): 60, (1536, 576): 60, (576, 1536): 30, (49152, 576): 1}
"""(outputs, inputs) → the number of such layers in the model."""
HEAD_ROWS = 128
"""Rows of the head at a time, as in the scorer."""
WRITTEN_LISTS = Path(__file__).parent / "data" / "nbest.jsonl"
FLOAT32, OURS = "float32", "int8"
Product = Callable[[Tensor], Tensor]


def float32(weight: Tensor) -> Product:
    """relisten's float32 product."""

    def product(x: Tensor) -> Tensor:
        with OneDNNLinear():
            return nn.functional.linear(x, weight)

    return product


def torch_dynamic(weight: Tensor) -> Product:
    """torch's dynamically quantised linear layer (FBGEMM), one scale for all rows."""
    torch.backends.quantized.engine = "fbgemm"
    scales = weight.abs().amax(1) / 127
    zeros = torch.zeros(len(weight), dtype=torch.long)
    rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, None)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, True)


def torch_weights_only(weight: Tensor) -> Product:
    """torch's product of bfloat16 rows and 8-bit weights."""
    scales = weight.abs().amax(1) / 127
    rounded = (weight / scales[:, None]).round().to(torch.int8)
    halves = scales.bfloat16()
    return lambda x: torch._weight_int8pack_mm(x.bfloat16(), rounded, halves).float()


def onnx_runtime(weight: Tensor) -> Product:
    """ONNX Runtime's DynamicQuantizeLinear and MatMulInteger, which it fuses."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    scales = (weight.abs().amax(1) / 127).numpy()
    rounded = np.rint(weight.numpy() / scales[:, None]).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "step", "zero"]),
        helper.make_node("MatMulInteger", ["q", "weight", "zero", "weight_zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["step", "scales"], ["both"]),
        helper.make_node("Mul", ["floats", "both"], ["y"]),
    ]
    constants = {
        "weight": np.ascontiguousarray(rounded.T),
        "scales": scales.astype(np.float32),
        "weight_zero": np.zeros(1, np.int8).reshape(()),
    }
    n_out, n_in = weight.shape
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n_in])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n_out])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def openvino(weight: Tensor) -> Product:
    """OpenVINO's product of 8-bit weights with rows that it quantises where the CPU supports it."""
    import openvino as ov
    from openvino import opset13 as ops

    scales = (weight.abs().amax(1, keepdim=True) / 127).numpy()
    rounded = np.rint(weight.numpy() / scales).astype(np.int8)
    x = ops.parameter([-1, weight.shape[1]], np.float32)
    wide = ops.multiply(ops.convert(ops.constant(rounded), np.float32), ops.constant(scales))
    model = ov.Model([ops.matmul(x, wide, False, True)], [x])
    options = {
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(weight.shape[1]),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = ov.Core().compile_model(model, "CPU", options)
    return lambda x: torch.from_numpy(compiled(x.numpy())[0])


ENGINES: dict[str, Callable[[Tensor], Product]] = {
    FLOAT32: float32,
    OURS: Int8Linear,
    "torch dynamic": torch_dynamic,
    "torch weights only": torch_weights_only,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
}


def engine_products(weight: Tensor) -> dict[str, Product]:
    """The products of all engines that run here; the others are printed."""
    products = {}
    for name, engine in ENGINES.items():
        try:
            products[name] = engine(weight)
            products[name](torch.zeros(2, weight.shape[1]))
        except (ImportError, RuntimeError, AttributeError) as error:
            products.pop(name, None)
            if weight.shape == (576, 576):
                print(f"{name} is left out: {str(error).splitlines()[0]}")
    return products


def best_call_seconds(
    runs: dict[str, Callable[[], object]], repeats: int, cpu: bool
) -> dict[str, float]:
    """Seconds per call of each run's quickest turn of 20 ms; a busy moment hits all alike."""
    clock = time.process_time if cpu else time.perf_counter
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            n_calls, start = 0, clock()
            while (spent := clock() - start) < 0.02:
                run()
                n_calls += 1
            best[name] = min(best[name], spent / n_calls)
    return best


def compare(rows: int, repeats: int, cpu: bool) -> dict[str, dict[str, float]]:
    """Seconds of all the model's layers and largest error, by engine."""
    total: dict[str, dict[str, float]] = {}
    for (n_out, n_in), n_layers in SHAPES.items():
        torch.manual_seed(0)
        weight = torch.randn(n_out, n_in) / n_in**0.5
        x = torch.randn(min(rows, HEAD_ROWS) if n_layers == 1 else rows, n_in)
        n_calls = n_layers * (rows / len(x))
        products = engine_products(weight)
        seconds = best_call_seconds({n: partial(p, x) for n, p in products.items()}, repeats, cpu)
        exact = x.double() @ weight.double().T
        for name, product in products.items():
            off = float((product(x).double() - exact).norm() / exact.norm())
            so_far = total.setdefault(name, {"seconds": 0.0, "error": 0.0})
            so_far["seconds"] += seconds[name] * n_calls
            so_far["error"] = max(so_far["error"], off)
    return total


def compare_scores(model: str, cpu: bool) -> dict[str, float]:
    """Seconds of the text scores of the written lists in float32 and int8, and their difference."""
    lists = [
        ScoringInput(tuple(h.text for h in one.hypotheses)) for one in load_nbest(WRITTEN_LISTS)
    ]
    clock = time.process_time if cpu else time.perf_counter
    rescorers = {dtype: load_rescorer(model, "cpu", dtype) for dtype in (FLOAT32, OURS)}
    seconds, scores = dict.fromkeys(rescorers, float("inf")), {}
    for _ in range(3):
        for dtype, rescorer in rescorers.items():
            start = clock()
            scores[dtype] = rescorer.score(lists, "text")
            seconds[dtype] = min(seconds[dtype], clock() - start)
    # only differences within a list matter
    apart = [a - b - (a - b).mean() for a, b in zip(scores[FLOAT32], scores[OURS], strict=True)]
    return {
        "lists": len(lists),
        "float32_s": seconds[FLOAT32],
        "int8_s": seconds[OURS],
        "ratio": seconds[FLOAT32] / seconds[OURS],
        "nats_apart_rms": float(np.sqrt(np.mean(np.concatenate(apart) ** 2))),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", help="a model whose text scores are compared, too")
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="CPU seconds instead of wall-clock ones, for a busy machine",
    )
    asked = parser.parse_args()
    report: dict[str, object] = {
        "cpu": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "vnni": bool(torch.cpu._is_vnni_supported()),
        "threads": torch.get_num_threads(),
        "clock": "cpu" if asked.cpu_seconds else "wall",
    }
    table = Table("rows", "engine", "s, all layers", "float32 over it", "error")
    for rows in asked.rows:
        found = compare(rows, asked.repeats, asked.cpu_seconds)
        base = found[FLOAT32]["seconds"]
        report[f"rows_{rows}"] = {
            name: {"ratio": round(base / one["seconds"], 3), **one} for name, one in found.items()
        }
        for name, one in found.items():
            ratio = f"{base / one['seconds']:.2f}"
            table.add_row(str(rows), name, f"{one['seconds']:.4f}", ratio, f"{one['error']:.1e}")
    Console().print(table)
    if asked.model:
        report["scores"] = compare_scores(asked.model, asked.cpu_seconds)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
