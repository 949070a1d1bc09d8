"""Loads engines by file suffix; a backend is imported only when one of its files is loaded."""

from __future__ import annotations

from pathlib import Path

from bsmamba2.errors import EngineError, MissingExtraError
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.model_files import model_file
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.trt_plan import read_sidecar
from bsmamba2.runtime.engines.base import Engine, EngineOptions, Spectrum
from bsmamba2.system.files import read_safetensors_header

__all__ = [
    "Engine",
    "EngineOptions",
    "Spectrum",
    "default_engine_path",
    "load_engine",
    "read_metadata",
]


def default_engine_path() -> Path:
    """Path of the engine that is embedded in the package."""
    return Path(__file__).parent.parent / "default.onnx"


def read_metadata(path: str | Path) -> Metadata:
    """Reads the metadata of an engine file, without loading the engine.

    Raises:
        BsmError: The file does not exist, or is not an engine.
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
        path: An engine file, or "default" for the one that is embedded in the package.
        options: Device, threads and precision; None takes all defaults.

    Raises:
        BsmError: The file does not exist or holds another kind of network, or its backend or the
            device is not available here.
    """
    options = options or EngineOptions()
    name = "the embedded engine" if str(path) == "default" else path
    path = _engine_file(path)
    if options.precision and path.suffix != ".safetensors":
        raise EngineError(f"The precision of {name} is fixed: leave --precision out.")
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
    return default_engine_path() if str(path) == "default" else model_file(path)


def _no_engine(path: Path) -> EngineError:
    return EngineError(f"{path} is not an engine: use a .onnx, .plan or .safetensors file.")
