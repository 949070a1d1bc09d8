"""ONNX Runtime: runs `.onnx` files on a CPU, and on a GPU with onnxruntime-gpu."""

from __future__ import annotations

import functools
import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bsmamba2.errors import EngineError, PluginError, resource_error, short_reason
from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.plugins.cpu_library import CpuScanLibrary, find_cpu_library
from bsmamba2.runtime.engines.base import EngineOptions, Spectrum, Unpicklable, check_spectrum
from bsmamba2.system.cores import bounded_threads, physical_cores, usable_cores
from bsmamba2.system.lanes import Lane

logger = logging.getLogger(__name__)
_arena_lock = threading.Lock()
_CUDA = "CUDAExecutionProvider"
_FUNCTION_BODY, _INLINED = "function body", "inlined"
_NATIVE_PRECISIONS = ("float32", "int8")  # in these, the scans are in float32
_FATAL_ONLY = 4  # log severity of ONNX Runtime: errors are raised anyway


class OnnxEngine(Unpicklable):
    """An exported network in ONNX Runtime."""

    batch: tuple[int, int, int] | None = None

    def __init__(self, path: Path, options: EngineOptions, *, native_scan: bool = True) -> None:
        """Checks the file, then loads it.

        Args:
            path: A file written by `bsm export`. Another tool may have inlined its scans, as ONNX
                Runtime's optimiser and `onnx.inliner` do.
            options: Device and threads.
            native_scan: Whether float32 scans on a CPU run in the package's native library if it
                is installed; otherwise they run as the function body in the file.

        Raises:
            BsmError: The file holds another network or ONNX Runtime refuses it, or the device is
                not available.
        """
        file = read_onnx_file(path)
        self.metadata = parse_metadata(file.metadata, path)
        scans, blocks = file.scan_nodes, 2 * self.metadata.model.network.layers
        inlined = not scans and file.inlined_scans == blocks
        if scans != blocks and not inlined:
            raise EngineError(
                f"{path} has {scans} scan nodes for {blocks} blocks: export the model again."
            )
        self.precision = self.metadata.precision
        providers = _providers(options.device)
        library = None
        native = native_scan and not inlined and self.precision in _NATIVE_PRECISIONS
        if native and _CUDA not in providers:
            library = _scan_library()
        self.scan = _INLINED if inlined else _FUNCTION_BODY
        if library:
            self.scan = f"native {library.instructions}"
        self._threads = _threads(options.threads)
        settings = _options(self._threads, library)

        def load() -> ort.InferenceSession:
            return ort.InferenceSession(str(path), settings, providers=providers)

        try:  # on another thread, as signals interrupt only what waits in Python
            self._session = Lane("bsm-load").submit(load).result()
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise resource_error(error) or EngineError(
                f"ONNX Runtime cannot load {path}: {short_reason(error)}; export the model again."
            ) from error
        self.device = "cuda" if _CUDA in self._session.get_providers() else "cpu"

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """The mask; see `Engine`."""
        check_spectrum(spectrum, self.metadata.model.audio)
        try:
            (mask,) = self._session.run(None, {"spectrum": spectrum})
        except Exception as error:
            raise resource_error(error) or EngineError(
                f"ONNX Runtime failed: {short_reason(error)}; free memory, or export the model "
                "again."
            ) from error
        if np.shape(mask) != spectrum.shape:
            raise EngineError(
                f"The model computed a mask of shape {np.shape(mask)}: export it again."
            )
        return np.asarray(mask, np.float32)

    def describe(self) -> dict[str, Any]:
        """Returns backend, version, device, threads, and what computes the scans."""
        return {
            "backend": "onnxruntime",
            "version": ort.__version__,
            "device": self.device,
            "threads": self._threads,
            "scan": self.scan,
        }


def _threads(asked: int | None) -> int | None:
    """Returns the session's number of threads; None is one for each core of the machine.

    That is ONNX Runtime's default, which heeds neither affinity nor quotas.
    """
    if asked is None and usable_cores() == os.cpu_count():
        return None
    return bounded_threads(asked, physical_cores())


def _options(threads: int | None, library: CpuScanLibrary | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Both keep a buffer per tensor shape for the whole run, and time and band blocks differ in
    # shape. A chunk of the full-size network takes 16 GB and twice as long with them, 3.6 GB
    # without; with the native scan it is 6.3 GB and 2.3 GB.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(str(library.path))
    with _arena_lock:  # if two threads registered an arena at once, the second would fail
        exact = _exact_arena()
    if exact:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _scan_library() -> CpuScanLibrary | None:
    """Loads the package's native scan library; None if it is not installed or does not load."""
    path = find_cpu_library()
    if path is None:
        return None
    try:
        return CpuScanLibrary(path)
    except PluginError as error:
        logger.warning("Scans run without the native library, which takes longer: %s", error)
        return None


@functools.cache
def _exact_arena() -> bool:
    """Registers, once, an arena for all sessions that allocates exactly what is requested.

    A session's own arena doubles with every allocation: 2.3 GB for a chunk of the full-size network
    that needs 1.8 GB. Returns False if the process has already registered another arena.
    """
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    try:
        arena = ort.OrtArenaCfg({"arena_extend_strategy": 1})  # kSameAsRequested
        ort.create_and_register_allocator(memory, arena)
    except Exception as error:  # another library has registered one, whose settings apply
        logger.debug("The exact arena cannot be registered: %s", error)
        return False
    return True


def _providers(device: str) -> list[str]:
    available = ort.get_available_providers()
    if device == "cuda" and _CUDA not in available:
        raise EngineError(
            "This ONNX Runtime has no CUDA provider: pip uninstall onnxruntime, "
            "then pip install onnxruntime-gpu."
        )
    wanted = [_CUDA] if device != "cpu" and _CUDA in available else []
    return [*wanted, "CPUExecutionProvider"]
