"""Laws of what CMake and nvcc make of the sources, and of how they fail."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_builds import ARCHITECTURE, SIZE, folders, leftovers

from bsmamba2.errors import PluginError
from bsmamba2.plugins.build import build_libraries
from bsmamba2.plugins.cache import Libraries

C_INTERFACE = {
    f"bsm_scan_{name}" for name in ("abi", "workspace", "enqueue", "status_text", "cuda_error")
}


def symbols(library: Path, option: str) -> set[str]:
    command = ["nm", "-D", option, str(library)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in out.splitlines()}


def needed(library: Path) -> str:
    command = ["readelf", "-d", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """The real sources, installed as they are, for one size and architecture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("real")))
        return build_libraries(architectures=ARCHITECTURE, sizes=[SIZE])


@pytest.mark.slow
def test_scan_library_exports_the_c_interface_only(real: Libraries) -> None:
    assert symbols(real.scan, "--defined-only") == C_INTERFACE


@pytest.mark.slow
def test_plugin_exports_what_tensorrt_asks_for_and_lacks_nothing_of_it(real: Libraries) -> None:
    assert real.plugin
    assert symbols(real.plugin, "--defined-only") == {"setLoggerFinder", "getCreators"}
    lacking = symbols(real.plugin, "--undefined-only")
    assert not [name for name in lacking if "nvinfer" in name or name.startswith(("cuda", "bsm"))]


@pytest.mark.slow
def test_libraries_bring_their_own_cuda_runtime(real: Libraries) -> None:
    assert real.plugin
    for library in (real.scan, real.plugin):
        assert not re.search("cudart|nvinfer", needed(library))


@pytest.mark.slow
def test_ptxas_speaks_of_every_kernel(real: Libraries) -> None:
    text = real.ptxas_log.read_text()
    assert "# scan_1_64_128\n" in text
    compiled = text.count("Compiling entry function")
    assert compiled >= 2
    assert text.count("bytes spill stores") >= compiled


@pytest.mark.slow
def test_failed_build_names_its_log_and_leaves_nothing_else(sources: Path, own_cache: Path) -> None:
    (sources / "cuda/scan_instance.cu").write_text("#error no such luck\n")
    with pytest.raises(PluginError, match=r"no such luck.*: see (.*\.log)") as error:
        build_libraries(architectures="90", plugin=False, sizes=[SIZE])
    (log,) = (Path(word) for word in re.findall(r"/\S+\.log", str(error.value)))
    assert "no such luck" in log.read_text()
    assert leftovers(own_cache) == [log.name]
    assert not folders(own_cache)


def test_refused_host_compiler_names_the_variable(
    sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = sources / "g++-99"
    program.write_text('#!/bin/sh\nexec g++ -U__GNUC__ -D__GNUC__=99 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("CUDAHOSTCXX", str(program))
    with pytest.raises(PluginError, match=r"nvcc [\d.]+ refuses .*g\+\+-99, .* CUDAHOSTCXX; see"):
        build_libraries(architectures="90", plugin=False, sizes=[SIZE])


def test_architecture_that_nvcc_does_not_know_is_named(sources: Path, own_cache: Path) -> None:
    with pytest.raises(PluginError, match=r"nvcc [\d.]+ has no target 500, install a newer .*see"):
        build_libraries(architectures="90,500", plugin=False, sizes=[SIZE])


@pytest.mark.slow
def test_two_processes_build_once(sources: Path, own_cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bsmamba2.plugins import build\n"
        f"build.source_folder = lambda: Path({str(sources)!r})\n"
        f"print(build.build_libraries(architectures='90', plugin=False, sizes=[{SIZE!r}],"
        " report=lambda line: print(line, file=sys.stderr)).scan)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum("Built in" in err for _, err in outputs) == 1
    assert sum("waiting" in err for _, err in outputs) == 1
    assert not leftovers(own_cache)


@pytest.mark.slow
def test_interrupted_build_leaves_nothing(sources: Path, own_cache: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("["):
            raise KeyboardInterrupt

    (sources / "cuda/scan_instance.cu").write_text("#include <cuda_fp16.h>\n")
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_libraries(architectures="90", plugin=False, sizes=[SIZE], report=interrupt)
    assert time.monotonic() - start < 60
    assert not folders(own_cache)
    assert all(name.endswith(".log") for name in leftovers(own_cache))
