"""Finds where ONNX Runtime spends a chunk's time: its profile by type of operator and by part.

ONNX Runtime reports a node that runs other nodes (If, Loop, the function body's branches) with
their time included; here every node has only its own time. The profiler itself costs some time:
use the shares, not the sum.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from bench.timing.engines import load, mixture
from bench.timing.worker import Task
from bsmamba2.formats.operator import OP_TYPE
from bsmamba2.runtime.engines.stft import stft

_INTEGER = ("MatMulInteger", "MatMulIntegerToFloat")  # the scan's body has none
PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", *_INTEGER)


def profile(
    *, kind: str, file: str, threads: int | None, seconds: float
) -> tuple[Task, dict[str, Any]]:
    """Profiles one chunk of an ONNX Runtime engine, after one to warm up."""
    folder = tempfile.TemporaryDirectory(prefix="bsm-profile-")
    sessions: list[ort.InferenceSession] = []
    make = ort.InferenceSession

    def profiled(path: str, options: ort.SessionOptions, **others: Any) -> ort.InferenceSession:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder.name) / "profile")
        sessions.append(make(path, options, **others))
        return sessions[-1]

    ort.InferenceSession = profiled  # in this process only; other options are the engine's
    model = onnx.load(file)
    for number, node in enumerate(
        model.graph.node
    ):  # these names are not those of the function body's nodes
        node.name = node.name or f"graph.{number}"
    named = Path(folder.name) / Path(file).name
    onnx.save_model(model, named)
    engine = load(kind, str(named), threads)
    audio = engine.metadata.model.audio
    spectrum = stft(mixture(audio, seconds), n_fft=audio.n_fft, hop=audio.hop)
    real_view = spectrum.view(np.float32).reshape(*spectrum.shape, 2)

    def task() -> dict[str, Any]:
        engine(real_view)
        engine(real_view)
        events = json.loads(Path(sessions[-1].end_profiling()).read_text())
        folder.cleanup()
        nodes = own_times(last_run(events))
        return {
            "operators": by_operator(nodes),
            "parts": by_part(nodes, frozenset(node.name for node in model.graph.node)),
        }

    return task, engine.describe()


def last_run(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Events of nodes in the last `model_run`."""
    events = [event for event in events if event.get("ph") == "X"]
    start = max((event["ts"] for event in events if event["name"] == "model_run"), default=0)
    return [e for e in events if e["name"].endswith("_kernel_time") and e["ts"] >= start]


def own_times(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """(name, operator, own milliseconds) of nodes, without the time of the nodes inside them.

    Args:
        events: With `tid`, `ts` and `dur` in microseconds; nested or disjoint within a thread.
    """
    result: list[list[Any]] = []
    for thread in {event["tid"] for event in events}:
        mine = [event for event in events if event["tid"] == thread]
        open_nodes: list[tuple[float, list[Any]]] = []
        for event in sorted(mine, key=lambda e: (e["ts"], -e["dur"])):
            name = event["name"].removesuffix("_kernel_time")
            node = [name, event["args"]["op_name"], event["dur"] / 1000]
            while open_nodes and open_nodes[-1][0] < event["ts"] + event["dur"]:
                open_nodes.pop()
            if open_nodes:
                open_nodes[-1][1][2] -= node[2]
            open_nodes.append((event["ts"] + event["dur"], node))
            result.append(node)
    return [(name, op, ms) for name, op, ms in result]


def by_operator(nodes: Sequence[tuple[str, str, float]]) -> list[dict[str, Any]]:
    """Milliseconds, share and number of nodes of each type of operator, the slowest first."""
    total = sum(ms for *_, ms in nodes) or 1.0
    sums: dict[str, list[float]] = defaultdict(list)
    for _, operator, ms in nodes:
        sums[operator].append(ms)
    rows = [
        {"operator": name, "ms": sum(each), "share": sum(each) / total, "nodes": len(each)}
        for name, each in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def by_part(
    nodes: Sequence[tuple[str, str, float]], graph_names: frozenset[str]
) -> dict[str, dict[str, float]]:
    """Time and share of the scan, of the matrix products outside it, and of the rest.

    The native scan is one operator. Otherwise the scan's nodes are those that are not named in the
    file's graph; this includes a few others that ONNX Runtime fuses and renames.
    """
    native = any(operator == OP_TYPE for _, operator, _ in nodes)
    sums = {"scan": 0.0, "products": 0.0, "rest": 0.0}
    for name, operator, ms in nodes:
        own = native or operator in _INTEGER or not graph_names.isdisjoint((name, *name.split("/")))
        if operator == OP_TYPE or not own:
            sums["scan"] += ms
        else:
            sums["products" if operator in PRODUCTS else "rest"] += ms
    total = sum(sums.values()) or 1.0
    return {part: {"ms": ms, "share": ms / total} for part, ms in sums.items()}
