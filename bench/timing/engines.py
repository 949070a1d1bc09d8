"""The engines of `latency.py`: their files, how each is loaded, and one chunk through it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common.job import Job, Skip, Task
from bsmamba2.config.model import AudioConfig
from bsmamba2.runtime.engines.base import Engine, EngineOptions, Spectrum

PARTS = ("stft_s", "engine_s", "mask_s", "istft_s")
"""The steps of a chunk, seconds each."""
SEED = 0
"""Of random weights."""


def prepare(job: Job) -> dict[str, Any]:
    """Writes the checkpoint and the ONNX files of one network, those that the job names."""
    from dataclasses import replace

    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.models.load import load_network

    network, metadata = load_network(job.file, seed=SEED)
    if job.weights:
        save_weights(job.weights, network.state_dict(), metadata)
    if job.onnx or job.int8:
        import onnx

        from bsmamba2.export.onnx.graph import export_graph
        from bsmamba2.export.onnx.quantise import quantise
        from bsmamba2.models.folded import fold

        # Without the gate of `bsm export`, which takes minutes; the masks are compared here.
        if job.onnx:
            onnx.save_model(export_graph(fold(network), metadata), job.onnx)
        if job.int8:
            model = export_graph(fold(network), replace(metadata, precision="int8"))
            quantise(model)
            onnx.save_model(model, job.int8)
    return {"weights": metadata.provenance.source}


def load(job: Job) -> Engine:
    """The engine of a job's kind.

    Raises:
        BsmError: It does not load.
        Skip: It is not to be had on this machine.
    """
    if job.kind == "pytorch":
        return _trained(job)
    if job.kind in ("onnx-body", "onnx-native", "onnx-int8"):
        return _onnx(job)
    from bsmamba2.runtime.engines import load_engine

    device = "auto" if job.kind == "plan" else "cpu"
    return load_engine(job.file, EngineOptions(device=device, threads=job.threads))


def _onnx(job: Job) -> Engine:
    """ONNX Runtime with the function body or, for the other kinds, with the native scan."""
    from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

    options = EngineOptions(device="cpu", threads=job.threads)
    engine = OnnxEngine(Path(job.file), options, native_scan=job.kind != "onnx-body")
    if job.kind == "onnx-native" and not engine.scan.startswith("native"):
        raise Skip(
            f"ONNX Runtime has no native scan here but the {engine.scan}, which is onnx-body's "
            "row: 'bsm doctor' says what is missing."
        )
    return engine


def _trained(job: Job) -> Engine:
    """The PyTorch engine with the network as it was trained, in place of the folded one."""
    from bsmamba2.models.load import load_network
    from bsmamba2.runtime.engines.pytorch import TorchEngine

    class TrainedEngine(TorchEngine):
        def __init__(self) -> None:
            super().__init__(Path(job.file), EngineOptions(device="cpu", threads=job.threads))
            self._network, _ = load_network(job.file)

    return TrainedEngine()


def chunk(job: Job, engine: Engine) -> Task:
    """The way of one chunk through a `Separator`, with a clock between its steps."""
    from bsmamba2.runtime.engines.stft import istft, stft

    audio = engine.metadata.model.audio
    samples = mixture(audio, job.seconds)
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


def mixture(audio: AudioConfig, seconds: float) -> NDArray[np.float32]:
    """The sound of the export gate's spectrum, (1, channels, samples)."""
    from bsmamba2.export.precision.gates import fixed_spectrum
    from bsmamba2.runtime.engines.stft import istft

    length = round(seconds * audio.sample_rate)
    spectrum = fixed_spectrum(audio, 1 + length // audio.hop).view(np.complex64)[..., 0]
    samples: NDArray[np.float32] = istft(spectrum, n_fft=audio.n_fft, hop=audio.hop, length=length)
    return samples
