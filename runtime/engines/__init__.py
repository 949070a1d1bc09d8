"""Engines by file suffix; a backend is imported only when one of its files is loaded."""

from __future__ import annotations

from pathlib import Path

from bsmamba2.errors import EngineError, MissingExtraError
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.trt_plan import read_sidecar
from bsmamba2.runtime.engines.base import Engine, EngineOptions, Spectrum
from bsmamba2.system.files import existing_file, read_safetensors_header

__all__ = [
    "Engine",
    "EngineOptions",
    "Spectrum",
    "default_engine_path",
    "load_engine",
    "read_metadata",
]


def default_engine_path() -> Path:
    """The engine embedded in the package."""
    return Path(__file__).parent.parent / "default.onnx"


def read_metadata(path: str | Path) -> Metadata:
    """What an engine file says of itself, without loading the engine.

    Raises:
        BsmError: No such file, or no engine.
    """
    path = _engine_file(path)
    if path.suffix == ".onnx":
        return parse_metadata(read_onnx_file(path).metadata, path)
    if path.suffix == ".safetensors":
        return parse_metadata(read_safetensors_header(path)[1], path)
    if path.suffix == ".plan":
        return read_sidecar(path)[1]
    raise _no_engine(path)


def load_engine(path: str | Path = "default", options: EngineOptions | None = None) -> Engine:
    """Loads an engine: `.onnx` (ONNX Runtime), `.plan` (TensorRT), `.safetensors` (PyTorch).

    Args:
        path: An engine file, or "default" for the one embedded in the package.
        options: Device, threads and precision; None takes all defaults.

    Raises:
        BsmError: No such file, a file of another network, a missing backend or device.
    """
    options = options or EngineOptions()
    path = _engine_file(path)
    if options.precision and path.suffix != ".safetensors":
        raise EngineError(f"{path} has its precision in it: leave --precision out.")
    if path.suffix == ".onnx":
        from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

        return OnnxEngine(path, options)
    if path.suffix == ".safetensors":
        try:
            from bsmamba2.runtime.engines.pytorch import TorchEngine
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{path} runs in PyTorch and", "train") from error
        return TorchEngine(path, options)
    if path.suffix == ".plan":
        from bsmamba2.runtime.engines.tensorrt.engine import load_plan

        return load_plan(path, options)
    raise _no_engine(path)


def _engine_file(path: str | Path) -> Path:
    return default_engine_path() if str(path) == "default" else existing_file(path)


def _no_engine(path: Path) -> EngineError:
    return EngineError(
        f"{path} is no engine: use a .onnx, .plan or .safetensors file; "
        "'bsm import' makes one from a .ckpt, 'bsm export' the .onnx."
    )
