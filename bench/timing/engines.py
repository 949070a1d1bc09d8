"""The engines of `latency.py`: makes their files, loads them, and runs chunks through them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.timing.worker import Task
from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import EngineError
from bsmamba2.runtime.engines import load_engine
from bsmamba2.runtime.engines.base import Engine, EngineOptions
from bsmamba2.runtime.engines.stft import istft, stft

PARTS = ("stft_s", "engine_s", "mask_s", "istft_s")
"""The steps of a chunk, each in seconds."""


def prepare(*, source: str, paths: dict[str, str]) -> tuple[Task, dict[str, Any]]:
    """Writes files of one network: "weights", "onnx", "int8".

    Args:
        source: A checkpoint, or a configuration for random weights.
        paths: Kind of file -> its path; only these are written.
    """
    from dataclasses import replace

    import onnx

    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.export.onnx.graph import export_graph
    from bsmamba2.export.onnx.quantise import quantise
    from bsmamba2.models.folded import fold
    from bsmamba2.models.load import load_network

    network, metadata = load_network(source)
    # Without the gate of `bsm export`, which takes minutes; the masks are compared here.
    if "weights" in paths:
        save_weights(paths["weights"], network.state_dict(), metadata)
    if "onnx" in paths:
        onnx.save_model(export_graph(fold(network), metadata), paths["onnx"])
    if "int8" in paths:
        model = export_graph(fold(network), replace(metadata, precision="int8"))
        quantise(model)
        onnx.save_model(model, paths["int8"])
    return dict, {}


def load(kind: str, file: str, threads: int | None) -> Engine:
    """Loads the engine of a row; raises BsmError if that fails."""
    cpu = EngineOptions(device="cpu", threads=threads)
    if kind == "pytorch":
        from bsmamba2.models.load import load_network
        from bsmamba2.runtime.engines.pytorch import TorchEngine

        trained = TorchEngine(Path(file), cpu)
        trained._network, _ = load_network(file)  # the network as trained, not folded
        return trained
    if kind.startswith("onnx"):
        from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

        engine = OnnxEngine(Path(file), cpu, native_scan=kind != "onnx-body")
        if kind == "onnx-native" and not engine.scan.startswith("native"):
            raise EngineError(
                f"{file} runs its scan as {engine.scan} here, which is the row onnx-body."
            )
        return engine
    return load_engine(
        file, EngineOptions(device="auto", threads=threads) if kind == "plan" else cpu
    )


def chunk(
    *, kind: str, file: str, threads: int | None, seconds: float, mask: str
) -> tuple[Task, dict[str, Any]]:
    """Runs one chunk through the steps of a `Separator` and times each step.

    Args:
        kind: The name of the row.
        file: The engine's file.
        threads: Threads of the engine; None is its own choice.
        seconds: Seconds of audio.
        mask: The file that the mask is written to (.npy).
    """
    engine = load(kind, file, threads)
    audio = engine.metadata.model.audio
    samples = mixture(audio, seconds)
    sizes = {"n_fft": audio.n_fft, "hop": audio.hop}

    def task() -> dict[str, Any]:
        clock = [time.perf_counter()]
        spectrum = stft(samples, **sizes)
        real_view = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
        clock.append(time.perf_counter())
        found = np.ascontiguousarray(engine(real_view), dtype=np.float32)
        clock.append(time.perf_counter())
        estimate = found.view(np.complex64)[..., 0] * spectrum
        clock.append(time.perf_counter())
        istft(estimate, **sizes, length=samples.shape[-1])
        clock.append(time.perf_counter())
        np.save(mask, found)
        times = dict(zip(PARTS, np.diff(clock).tolist(), strict=True))
        return times | {"whole_s": sum(times.values())}

    return task, engine.describe() | {"audio_s": seconds}


def mixture(audio: AudioConfig, seconds: float) -> NDArray[np.float32]:
    """The audio of the export gate's fixed spectrum, (1, channels, samples)."""
    from bsmamba2.export.precision.gates import fixed_spectrum

    length = round(seconds * audio.sample_rate)
    spectrum = fixed_spectrum(audio, 1 + length // audio.hop).view(np.complex64)[..., 0]
    samples: NDArray[np.float32] = istft(spectrum, n_fft=audio.n_fft, hop=audio.hop, length=length)
    return samples
