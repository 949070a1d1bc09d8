"""Engines by file suffix; a backend is imported only when one of its files is loaded."""

from __future__ import annotations

from pathlib import Path

from bsmamba2.errors import EngineError, MissingExtraError
from bsmamba2.files import existing_file
from bsmamba2.runtime.engines.base import Engine, Spectrum

__all__ = ["Engine", "Spectrum", "default_engine_path", "load_engine"]


def default_engine_path() -> Path:
    """The engine embedded in the package."""
    return Path(__file__).parent.parent / "default.onnx"


PRECISIONS = ("float32", "float16")
"""Of matrix products, where an engine can choose."""


def load_engine(
    path: str | Path = "default",
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    allow_host_code: bool = False,
) -> Engine:
    """Loads an engine: `.onnx` (ONNX Runtime), `.plan` (TensorRT), `.safetensors` (PyTorch).

    Args:
        path: An engine file, or "default" for the one embedded in the package.
        device: "auto" (the GPU where the backend has one), "cpu" or "cuda".
        threads: CPU threads; None leaves the choice to the backend.
        precision: Of the matrix products of a `.safetensors` engine: "float32", which None is,
            or on a GPU "float16". Other files have theirs in them.
        allow_host_code: Lets a `.plan` that carries its plugin run that code.

    Raises:
        BsmError: No such file, a file of another network, a missing backend or device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EngineError(f"Unknown device '{device}': choose auto, cpu or cuda.")
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, not {threads}.")
    if precision not in (None, *PRECISIONS):
        raise EngineError(f"Unknown precision '{precision}': choose {' or '.join(PRECISIONS)}.")
    path = default_engine_path() if str(path) == "default" else existing_file(path)
    if precision and path.suffix != ".safetensors":
        raise EngineError(f"{path} has its precision in it: leave --precision out.")
    if path.suffix == ".onnx":
        from bsmamba2.runtime.engines.onnxruntime import OnnxEngine

        return OnnxEngine(path, device=device, threads=threads)
    if path.suffix == ".safetensors":
        try:
            from bsmamba2.runtime.engines.pytorch import TorchEngine
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{path} runs in PyTorch and", "train") from error
        return TorchEngine(
            path, device=device, threads=threads, precision=precision or PRECISIONS[0]
        )
    if path.suffix == ".plan":
        from bsmamba2.runtime.engines.tensorrt import load_plan

        return load_plan(path, device=device, allow_host_code=allow_host_code)
    raise EngineError(
        f"{path} is no engine: use a .onnx, .plan or .safetensors file; "
        "'bsm import' makes one from a .ckpt, 'bsm export' the .onnx."
    )
