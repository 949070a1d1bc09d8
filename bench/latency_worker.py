"""One engine in a process of its own, that computes a chunk whenever it is told to.

    python bench/latency_worker.py JOB

JOB is a `Job` as JSON. The process says that it is ready, then answers each line on its standard
input with one line of JSON. So its peak memory is this engine's alone, and `latency.py` decides
which process computes when.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config import AudioConfig
from bsmamba2.errors import BsmError
from bsmamba2.runtime.engines.base import Engine, Spectrum

PARTS = ("stft_s", "engine_s", "mask_s", "istft_s")
"""The steps of a chunk, seconds each."""
SEED = 0
"""Of random weights."""
_GEMM_S = 1.0  # the matrix product is repeated for as long


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process is for."""

    kind: str
    """Name of an engine, "gemm" or "prepare"."""
    threads: int | None = None
    """CPU threads; None is the backend's own choice."""
    seconds: float = 0
    """Of audio in a chunk."""
    file: str = ""
    """Of the engine; "prepare": configuration or checkpoint to start from."""
    mask: str = ""
    """Where an engine leaves its mask after each chunk (.npy)."""
    shape: tuple[int, ...] = ()
    """"gemm": (m, k, n)."""
    weights: str = ""
    """"prepare": the checkpoint to write, if any."""
    onnx: str = ""
    """"prepare": the ONNX file to write, if any."""


Task = Callable[[], dict[str, Any]]


def main() -> None:
    """Does one job until the standard input ends."""
    replies = _take_stdout()
    job = Job(**json.loads(sys.argv[1]))
    try:
        start = time.perf_counter()
        task, about = _start(job)
        _reply(replies, {"about": about, "load_s": time.perf_counter() - start})
        for _ in sys.stdin:
            _reply(replies, task() | {"peak_memory_mib": _peak_memory_mib()})
    except BsmError as error:
        _reply(replies, {"error": str(error)})
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _start(job: Job) -> tuple[Task, dict[str, Any]]:
    """What to do for each line, and a description of it."""
    if job.kind == "prepare":
        return dict, _prepare(job)
    if job.kind == "gemm":
        return _gemm(job), {"library": f"numpy {np.__version__}"}
    engine = _trained(job) if job.kind == "pytorch" else _load(job)
    return _chunk(job, engine), engine.describe()


def _prepare(job: Job) -> dict[str, Any]:
    """Writes checkpoint and ONNX file of one network."""
    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.models.load import load_network

    network, artefact = load_network(job.file, seed=SEED)
    if job.weights:
        save_weights(job.weights, network.state_dict(), artefact)
    if job.onnx:
        import onnx

        from bsmamba2.export.graph import export_graph
        from bsmamba2.models.folded import fold

        # Without the gate of `bsm export`, which takes minutes; the masks are compared here.
        onnx.save_model(export_graph(fold(network), artefact), job.onnx)
    return {"weights": artefact.provenance.source}


def _load(job: Job) -> Engine:
    from bsmamba2.runtime.engines import load_engine

    return load_engine(job.file, device="cpu", threads=job.threads)


def _trained(job: Job) -> Engine:
    """The PyTorch engine with the network as it was trained, in place of the folded one."""
    from bsmamba2.models.load import load_network
    from bsmamba2.runtime.engines.pytorch import TorchEngine

    class TrainedEngine(TorchEngine):
        def __init__(self) -> None:
            super().__init__(Path(job.file), device="cpu", threads=job.threads)
            self._network, _ = load_network(job.file)

    return TrainedEngine()


def _gemm(job: Job) -> Task:
    """A float32 product of the given shape, often enough for a clock."""
    m, k, n = job.shape
    random = np.random.default_rng(SEED)
    a, b = random.random((m, k), np.float32), random.random((k, n), np.float32)
    product = np.zeros((m, n), np.float32)

    def task() -> dict[str, Any]:
        count, start, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < _GEMM_S:
            np.matmul(a, b, out=product)
            count, elapsed = count + 1, time.perf_counter() - start
        return {"gflops": 2e-9 * m * k * n * count / elapsed}

    return task


def _chunk(job: Job, engine: Engine) -> Task:
    """The way of one chunk through a `Separator`, with a clock between its steps."""
    from bsmamba2.runtime.stft import istft, stft

    audio = engine.artefact.model.audio
    samples = _mixture(audio, job.seconds)
    sizes = {"n_fft": audio.n_fft, "hop": audio.hop}

    def steps() -> Iterator[Spectrum | None]:
        """Stops after each of PARTS; the second one yields the mask."""
        spectrum = stft(samples, **sizes)
        real_view = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
        yield None
        mask = np.ascontiguousarray(engine(real_view), dtype=np.float32)
        yield mask
        estimate = mask.view(np.complex64)[..., 0] * spectrum
        yield None
        istft(estimate, **sizes, length=samples.shape[-1])
        yield None

    def task() -> dict[str, Any]:
        times, mask, start = {}, None, time.perf_counter()
        for part, result in zip(PARTS, steps(), strict=True):
            end = time.perf_counter()
            times[part], start = end - start, end
            mask = result if result is not None else mask
        np.save(job.mask, np.asarray(mask))
        return times | {"whole_s": sum(times.values())}

    return task


def _mixture(audio: AudioConfig, seconds: float) -> NDArray[np.float32]:
    """The sound of the export gate's spectrum, (1, channels, samples)."""
    from bsmamba2.export.gates import fixed_spectrum
    from bsmamba2.runtime.stft import istft

    length = round(seconds * audio.sample_rate)
    spectrum = fixed_spectrum(audio, 1 + length // audio.hop).view(np.complex64)[..., 0]
    samples: NDArray[np.float32] = istft(spectrum, n_fft=audio.n_fft, hop=audio.hop, length=length)
    return samples


def _peak_memory_mib() -> float:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _take_stdout() -> TextIO:
    """The standard output for replies alone; whatever else a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, values: dict[str, Any]) -> None:
    print(json.dumps(values), file=replies, flush=True)


if __name__ == "__main__":
    main()
