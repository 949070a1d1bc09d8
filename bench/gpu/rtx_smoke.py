"""Does TensorRT-RTX run on this GPU at all? Builds and runs two layers; prints one JSON line.

python bench/gpu/rtx_smoke.py [--build-only]
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weight = (random.normal(size=(256, 512)) / 16).astype(np.float16)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
    "smoke",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [64, 256])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [64, 512])],
    [numpy_helper.from_array(weight, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnx.checker.check_model(model)

log = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
assert parser.parse(model.SerializeToString()), parser.get_error(0)
start_s = time.perf_counter()
plan = builder.build_serialized_network(network, builder.create_builder_config())
figures = {
    "tensorrt_rtx": trt.__version__,
    "build_s": round(time.perf_counter() - start_s, 2),
    "plan_kib": plan.nbytes // 1024,
}
print("built", figures, flush=True)
if "--build-only" in sys.argv:
    sys.exit()

import cupy

engine = trt.Runtime(log).deserialize_cuda_engine(plan)
assert engine is not None, "not deserialised"
start_s = time.perf_counter()
context = engine.create_execution_context()
stream = cupy.cuda.Stream(non_blocking=True)
x = cupy.asarray(random.normal(size=(64, 256)).astype(np.float16))
y = cupy.full((64, 512), cupy.nan, cupy.float16)
cupy.cuda.Device().synchronize()
context.set_tensor_address("x", x.data.ptr)
context.set_tensor_address("y", y.data.ptr)
assert context.execute_async_v3(stream.ptr)
stream.synchronize()
figures["first_run_s"] = round(time.perf_counter() - start_s, 2)
expected = np.maximum(cupy.asnumpy(x).astype(np.float64) @ weight, 0)
figures["max_error"] = float(np.abs(cupy.asnumpy(y) - expected).max())
print(json.dumps(figures | {"runs": bool(figures["max_error"] < 0.05)}))
