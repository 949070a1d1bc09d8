"""Peak rates of this machine: matrix products in float32 and int8, and memory traffic."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.timing.worker import Task
from bsmamba2.system.cores import usable_cores

ARRAY_MIB = 256
"""Size of each of the three arrays: more than any cache of the last level."""


def gemm(*, shape: Sequence[int], seconds: float, **_: object) -> tuple[Task, dict[str, Any]]:
    """The rate of float32 products of a `shape` (m, k, n) in NumPy, measured for `seconds`."""
    m, k, n = shape
    random = np.random.default_rng(0)
    a, b = random.random((m, k), np.float32), random.random((k, n), np.float32)
    product = np.zeros((m, n), np.float32)

    def task() -> dict[str, Any]:
        once = _repeat(lambda: np.matmul(a, b, out=product), seconds)
        return {"gflops": 2e-9 * m * k * n / once}

    return task, {"library": f"numpy {np.__version__}"}


def gemm_int8(
    *, shape: Sequence[int], seconds: float, threads: int | None
) -> tuple[Task, dict[str, Any]]:
    """The rate of products of uint8 and int8, as in exported int8 files, in ONNX Runtime."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    m, k, n = shape
    random = np.random.default_rng(0)
    weights = random.integers(-63, 64, (k, n), np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "zero"], ["sums"])],
        "gemm",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [m, k])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [m, n])],
        [
            numpy_helper.from_array(weights, "b"),
            numpy_helper.from_array(np.array(128, np.uint8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"a": random.integers(0, 256, (m, k), np.uint8)}

    def task() -> dict[str, Any]:
        return {"gops": 2e-9 * m * k * n / _repeat(lambda: session.run(None, feed), seconds)}

    return task, {"library": f"onnxruntime {ort.__version__}"}


def memory(*, seconds: float, threads: int | None, **_: object) -> tuple[Task, dict[str, Any]]:
    """The bandwidth of a copy (reads n, writes n) or of a sum (reads 2 n, writes n), if higher.

    Bytes are counted as in STREAM: a cache line that is read only to be overwritten is not counted.
    """
    threads = threads or usable_cores()
    size = ARRAY_MIB * 2**20 // 4
    a, b, c = (np.full(size, value, np.float32) for value in (0, 1, 2))
    edges = [size * number // threads for number in range(threads + 1)]
    parts = [slice(*pair) for pair in itertools.pairwise(edges)]
    pool = ThreadPoolExecutor(threads)  # NumPy releases the GIL in both

    def gb_s(work: Callable[[slice], object], arrays: int) -> float:
        return 1e-9 * arrays * a.nbytes / _repeat(lambda: list(pool.map(work, parts)), seconds)

    def task() -> dict[str, Any]:
        copied = gb_s(lambda part: np.copyto(a[part], b[part]), 2)
        added = gb_s(lambda part: np.add(b[part], c[part], out=a[part]), 3)
        return {"gb_s": max(copied, added), "copy_gb_s": copied, "add_gb_s": added}

    return task, {"library": f"numpy {np.__version__}", "threads": threads, "array_mib": ARRAY_MIB}


def _repeat(work: Callable[[], object], seconds: float) -> float:
    """Seconds of one `work`, from enough repetitions to take `seconds`."""
    count, start, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < seconds or not count:
        work()
        count, elapsed = count + 1, time.perf_counter() - start
    return elapsed / count
