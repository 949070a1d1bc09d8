"""Builds libbsm_scan and libbsm_trt_plugin once, and finds them again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bsmamba2.errors import PluginError
from bsmamba2.plugins import architectures as arch
from bsmamba2.plugins import cache
from bsmamba2.plugins.cache import Libraries, Record
from bsmamba2.plugins.compilation import ALL_SIZES, Options, run_cmake
from bsmamba2.plugins.toolchain import Toolchain, find_toolchain
from bsmamba2.system.atomic import atomic_folder, locked, temporary_folder
from bsmamba2.system.files import sha256_file

logger = logging.getLogger(__name__)

_SOURCE_SUFFIXES = {".txt", ".sh", ".h", ".cuh", ".cu", ".cpp"}


def build_libraries(
    *,
    architectures: str = "native",
    plugin: bool = True,
    include_dir: Path | None = None,
    jobs: int | None = None,
    force: bool = False,
    sizes: Sequence[str] = (),
    report: Callable[[str], None] = logger.info,
) -> Libraries:
    """Builds the libraries, or takes them from the cache if nothing has changed since.

    Args:
        architectures: "native" for the GPUs of this machine, "all", or names: "80,90", "90+PTX".
        plugin: Build the TensorRT plugin as well.
        include_dir: The folder of TensorRT's headers; None looks for it.
        jobs: Compilers at a time; None takes one a CPU.
        force: Build in any case.
        sizes: Kernels to build, each "dtype:headdim:d_state" with BsmDtype's numbers; none for
            all. The library refuses the others.
        report: Gets lines on the progress.

    Raises:
        PluginError: Something that it needs is missing, or the build failed; where its log is.
    """
    toolchain = find_toolchain()
    options = Options(
        architectures=arch.resolve_architectures(architectures),
        sizes=tuple(sorted(set(sizes))),
        headers=_tensorrt_headers(include_dir) if plugin else None,
        jobs=jobs or len(os.sched_getaffinity(0)),
    )
    work = _Work(toolchain=toolchain, options=options, sources=sources_sha256())
    folder = cache.make_cache() / work.key
    if not force and (libraries := _cached(folder)):
        return libraries

    def wait() -> None:
        report("Another process builds the same; waiting for it.")

    try:
        with locked(folder.with_suffix(".lock"), wait):
            if not force and (libraries := _cached(folder)):
                return libraries  # the other process's
            return work.build(folder, report)
    except OSError as error:
        raise PluginError(f"Cannot build {folder}: {error.strerror or error}.") from error


def find_libraries(*, plugin: bool = False) -> Libraries | None:
    """The newest build of these sources that runs on the GPUs of this machine, if there is one.

    Builds nothing and needs no compiler. Builds of some sizes only are passed over.

    Args:
        plugin: Only a build that has the TensorRT plugin.

    Raises:
        PluginError: Others can write into the cache.
    """
    root = cache.find_cache()
    if root is None:
        return None
    sources = sources_sha256()
    for folder in sorted(root.iterdir(), key=_modified, reverse=True):
        found = None if folder.suffix else cache.load_build(folder)
        if found is None:
            continue
        record, libraries = found
        wanted = record.sources == sources and not record.sizes
        if wanted and (libraries.plugin or not plugin) and _fits_gpus(libraries):
            if cache.is_intact(folder, record):
                return libraries
            logger.warning("%s is not what was built there and is not used.", folder)
    return None


def find_or_build(*, report: Callable[[str], None] = logger.info) -> Libraries:
    """A build with the TensorRT plugin: one that is there and fits this machine, else a new one.

    A new one is for the GPUs here, or for all where there is none.

    Args:
        report: Gets lines on the progress.

    Raises:
        PluginError: Others can write into the cache, or nothing can be built.
    """
    if libraries := find_libraries(plugin=True):
        return libraries
    here = "native" if arch.gpus() else "all"
    return build_libraries(architectures=here, report=report)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A build to do."""

    toolchain: Toolchain
    options: Options
    sources: str
    """SHA-256 of the sources."""

    @property
    def key(self) -> str:
        """Hash of everything that decides what the build gives."""
        headers = self.options.headers
        parts = (
            self.sources,
            self.toolchain.fingerprint,
            self.options.architectures,
            self.options.sizes,
            _hash_files(headers, headers.glob("Nv*.h")) if headers else None,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def build(self, folder: Path, report: Callable[[str], None]) -> Libraries:
        """Builds a folder that appears when it is complete; the caller holds the lock."""
        log = folder.with_suffix(".log")
        start = time.monotonic()
        report(self._announcement())
        with atomic_folder(folder) as staging, temporary_folder(folder.parent) as tree:
            staging.chmod(0o700)
            run_cmake(source_folder(), tree, self.toolchain, self.options, log, report)
            record = self._collect(tree, staging)
            log.replace(staging / "build.log")
            cache.write_record(staging, record)
        report(f"Built in {time.monotonic() - start:.0f} s.")
        found = cache.load_build(folder)
        assert found is not None
        return found[1]

    def _announcement(self) -> str:
        what = "the scan and its TensorRT plugin" if self.options.headers else "the scan"
        count = len(self.options.sizes) or ALL_SIZES
        kernels = "1 kernel" if count == 1 else f"{count} kernels"
        target = arch.describe(self.options.architectures)
        return (
            f"Building {what}: {kernels} for {target}, nvcc {self.toolchain.release}, "
            f"{self.options.jobs} at a time."
        )

    def _collect(self, tree: Path, staging: Path) -> Record:
        """Moves what is kept out of CMake's tree.

        Raises:
            PluginError: The sources are not those that were hashed any more.
        """
        if sources_sha256() != self.sources:
            raise PluginError("The CUDA sources changed while they were built: build again.")
        names = [cache.SCAN, *([cache.PLUGIN] if self.options.headers else [])]
        for name in names:
            (tree / name).replace(staging / name)
            (staging / name).chmod(0o700)  # whatever the umask: what others can write is not loaded
        logs = sorted((tree / "ptxas").glob("*.log"))
        text = "".join(f"# {path.stem}\n{path.read_text('utf-8')}" for path in logs)
        (staging / cache.PTXAS_LOG).write_text(text, "utf-8")
        return Record(
            sources=self.sources,
            sizes=self.options.sizes,
            architectures=tuple((tree / "architectures.txt").read_text("utf-8").split(";")),
            sha256={name: sha256_file(staging / name) for name in names},
        )


def _tensorrt_headers(include_dir: Path | None) -> Path:
    """The folder of TensorRT's headers.

    Raises:
        PluginError: There is none.
    """
    from bsmamba2.plugins.tensorrt_library import find_include_dir

    if include_dir is None:
        try:
            return find_include_dir().absolute()
        except PluginError as error:
            raise PluginError(f"{error} Without the plugin: --no-tensorrt.") from error
    if not (include_dir / "NvInferRuntime.h").is_file():
        raise PluginError(
            f"No NvInferRuntime.h in {include_dir}: name the folder of TensorRT's headers."
        )
    return include_dir.absolute()


def _fits_gpus(libraries: Libraries) -> bool:
    usable = (gpu for gpu in arch.gpus() if gpu >= arch.OLDEST)
    return all(arch.runs_on(libraries.architectures, gpu) for gpu in usable)


def _cached(folder: Path) -> Libraries | None:
    found = cache.load_build(folder)
    return found[1] if found and cache.is_intact(folder, found[0]) else None


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):  # another process may be replacing it
        return path.stat().st_mtime
    return 0.0


def source_folder() -> Path:
    """The folder of CMakeLists.txt, in the installed package or in a checkout."""
    folder = resources.files("bsmamba2.plugins")
    assert isinstance(folder, Path)  # packages are never run from a zip file
    return folder


def sources_sha256() -> str:
    """SHA-256 of all sources: equal ones give interchangeable libraries."""
    folder = source_folder()
    paths = (*folder.glob("*"), *folder.glob("*/*"))
    built = (path for path in paths if path.parent.name != "examples")
    return _hash_files(folder, (path for path in built if path.suffix in _SOURCE_SUFFIXES))


def _hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Of contents and of names below `folder`, wherever that lies."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
