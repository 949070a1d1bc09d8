"""Builds libbsm_scan and libbsm_trt_plugin once, and finds them again in the user's cache.

A build is a folder in the cache. It gets its name only when it is complete, and holds the SHA-256
of its libraries. Processes load these libraries, so none is used from a folder that another user
could have written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import FileError, PluginError
from bsmamba2.plugins import architectures as arch
from bsmamba2.plugins.compilation import PLUGIN, RECIPE, SCAN, SIZES, Options, compile_libraries
from bsmamba2.plugins.toolchain import Toolchain, find_toolchain
from bsmamba2.system.atomic import atomic_folder, locked, temporary_folder, writing
from bsmamba2.system.cores import usable_cores
from bsmamba2.system.files import sha256_file
from bsmamba2.system.user_cache import cache_folder, check_private

logger = logging.getLogger(__name__)

_LOG, _RECORD = "build.log", "build.json"


@dataclass(frozen=True, kw_only=True)
class Libraries:
    """A finished build: what it was made from, and the SHA-256 of its libraries."""

    folder: Path
    sources: str
    """SHA-256 of all sources."""
    sizes: tuple[str, ...]
    """Its kernels, out of SIZES."""
    architectures: tuple[str, ...]
    """Targets of nvcc: sm_90 is machine code, compute_90 PTX."""
    sha256: dict[str, str]
    """SHA-256 of each library, by file name."""

    @property
    def scan(self) -> Path:
        """The path of libbsm_scan.so, the C interface of include/bsm_scan.h."""
        return self.folder / SCAN

    @property
    def plugin(self) -> Path | None:
        """The path of libbsm_trt_plugin.so, which needs no libbsm_scan.so; None if not built."""
        return self.folder / PLUGIN if PLUGIN in self.sha256 else None

    @property
    def log(self) -> Path:
        """The compilers' output, with each kernel's registers and spills."""
        return self.folder / _LOG


def build_libraries(
    *,
    architectures: str = "native",
    plugin: bool = True,
    include_dir: Path | None = None,
    jobs: int | None = None,
    force: bool = False,
    sizes: Sequence[str] = SIZES,
    report: Callable[[str], None] = logger.info,
) -> Libraries:
    """Builds the libraries, or takes them from the cache if nothing has changed since.

    Args:
        architectures: "native" for the GPUs of this machine, "all", or names: "80,90", "90+PTX".
        plugin: Build the TensorRT plugin as well.
        include_dir: The folder of TensorRT's headers; None looks for it.
        jobs: Compilers to run at a time; None runs one per CPU.
        force: Build even if the cache has the libraries.
        sizes: Kernels to build, out of SIZES. The library refuses the others.
        report: Called with lines of progress.

    Raises:
        FileError: The cache cannot be used.
        PluginError: Something is missing, or the build failed; the sentence names its log.
    """
    toolchain = find_toolchain()
    options = Options(
        architectures=arch.resolve_architectures(architectures, toolchain.known),
        sizes=tuple(sorted(set(sizes))),
        headers=_tensorrt_headers(include_dir) if plugin else None,
        jobs=jobs or usable_cores(),
    )
    sources = sources_sha256()
    folder = cache_folder("plugins") / _key(sources, toolchain, options)

    def wait() -> None:
        report("Waiting for another process that is building the same libraries.")

    with locked(folder.with_suffix(".lock"), wait), writing(folder):
        found = None if force else load_build(folder)
        if found and is_intact(found):
            return found
        return _build(folder, sources, toolchain, options, report)


def find_libraries(*, plugin: bool = False) -> Libraries | None:
    """Finds the newest build of these sources that runs on all GPUs of this machine, or None.

    Builds nothing and needs no compiler. Ignores builds that lack some sizes.

    Args:
        plugin: Accept only a build that has the TensorRT plugin.

    Raises:
        FileError: The cache cannot be used.
    """
    sources, gpus = sources_sha256(), [gpu for gpu in arch.gpus() if gpu >= arch.OLDEST]
    wanted = PLUGIN if plugin else SCAN
    there = cache_folder("plugins", make=False).glob("*")
    for folder in sorted(there, key=_modified, reverse=True):
        found = None if folder.suffix else load_build(folder)
        if found is None or found.sources != sources or len(found.sizes) < len(SIZES):
            continue
        if wanted in found.sha256 and all(arch.runs_on(found.architectures, n) for n in gpus):
            if is_intact(found):
                return found
            logger.warning("%s has changed since it was built and is not used.", folder)
    return None


def find_or_build(*, report: Callable[[str], None] = logger.info) -> Libraries:
    """Finds a build with the TensorRT plugin that fits this machine, or builds one.

    A new build is for the GPUs of this machine, or for "all" if it has none.

    Args:
        report: Called with lines of progress.

    Raises:
        FileError: The cache cannot be used.
        PluginError: Nothing can be built.
    """
    if libraries := find_libraries(plugin=True):
        return libraries
    here = "native" if arch.gpus() else "all"
    return build_libraries(architectures=here, report=report)


def source_folder() -> Path:
    """The folder of the sources, in the installed package or in a checkout."""
    return Path(__file__).parent


def sources_sha256() -> str:
    """SHA-256 of the sources and compiler flags: if equal, the libraries are interchangeable."""
    folder = source_folder()
    files = [path for name in ("cuda", "include", "tensorrt") for path in folder.glob(f"{name}/*")]
    return hashlib.sha256(f"{RECIPE} {_hash_files(folder, files)}".encode()).hexdigest()


def load_build(folder: Path) -> Libraries | None:
    """Loads the record of a build; None if there is none. `is_intact` checks the files."""
    try:
        values = json.loads((folder / _RECORD).read_text("utf-8"))
        return Libraries(
            folder=folder,
            sources=str(values["sources"]),
            sizes=tuple(map(str, values["sizes"])),
            architectures=tuple(map(str, values["architectures"])),
            sha256={name: str(digest) for name, digest in dict(values["sha256"]).items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_intact(libraries: Libraries) -> bool:
    """Whether folder and libraries are private to the user, and unchanged since they were built.

    Because nobody else can write them, they cannot be exchanged between this check and loading.
    """
    folder, digests = libraries.folder, libraries.sha256
    try:
        for path in (folder, *(folder / name for name in digests)):
            check_private(path)
        return SCAN in digests and all(
            not (folder / name).is_symlink() and sha256_file(folder / name) == digest
            for name, digest in digests.items()
        )
    except (OSError, FileError):
        return False


def _build(
    folder: Path,
    sources: str,
    toolchain: Toolchain,
    options: Options,
    report: Callable[[str], None],
) -> Libraries:
    """Builds into `folder`, which appears only when complete; the caller holds the lock."""
    what = "the scan and its TensorRT plugin" if options.headers else "the scan"
    report(
        f"Building {what}: {len(options.sizes)} kernels for {', '.join(options.architectures)}, "
        f"nvcc {toolchain.release}, {options.jobs} at a time."
    )
    log, start = folder.with_suffix(".log"), time.monotonic()
    names = [SCAN, PLUGIN] if options.headers else [SCAN]
    with atomic_folder(folder) as staging, temporary_folder(folder.parent) as tree:
        staging.chmod(0o700)
        compile_libraries(source_folder(), tree, toolchain, options, log, report)
        if sources_sha256() != sources:
            raise PluginError("The CUDA sources changed during the build: build again.")
        for name in names:
            (tree / name).replace(staging / name)
            (staging / name).chmod(0o700)  # in spite of the umask: is_intact checks this
        log.replace(staging / _LOG)
        built = {
            "sources": sources,
            "sizes": options.sizes,
            "architectures": options.architectures,
            "sha256": {name: sha256_file(staging / name) for name in names},
        }
        (staging / _RECORD).write_text(json.dumps(built, indent=2) + "\n", "utf-8")
    report(f"Built in {time.monotonic() - start:.0f} s.")
    found = load_build(folder)
    assert found is not None
    return found


def _key(sources: str, toolchain: Toolchain, options: Options) -> str:
    """Hash of everything that a build depends on."""
    headers = options.headers
    parts = (
        sources,
        toolchain.fingerprint,
        options.architectures,
        options.sizes,
        _hash_files(headers, headers.glob("Nv*.h")) if headers else None,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _tensorrt_headers(include_dir: Path | None) -> Path:
    """Checks the folder of TensorRT's headers, or finds one.

    Raises:
        PluginError: The headers are missing.
    """
    from bsmamba2.plugins.tensorrt_library import find_include_dir

    if include_dir is None:
        try:
            return find_include_dir().absolute()
        except PluginError as error:
            raise PluginError(
                f"{error} Without the plugin: 'bsm plugin build --no-tensorrt'."
            ) from error
    if not (include_dir / "NvInferRuntime.h").is_file():
        raise PluginError(
            f"No NvInferRuntime.h in {include_dir}: name the folder of TensorRT's headers."
        )
    return include_dir.absolute()


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):  # another process may be replacing it
        return path.stat().st_mtime
    return 0.0


def _hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Hashes the contents of `files` and their names relative to `folder`."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
