"""Laws of the libraries that nvcc builds, and of its failures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_builds import SIZE, leftovers

from bench.kernels.ptxas import read_ptxas_log
from bsmamba2.errors import PluginError
from bsmamba2.plugins.build import Libraries, build_libraries, find_libraries

C_INTERFACE = {
    f"bsm_scan_{name}" for name in ("abi", "workspace", "enqueue", "status_text", "cuda_error")
}
OUTERMOST = [f"{dtype}:{size}" for dtype in range(3) for size in ("32:32", "64:128")]
PUBLISHED = ["0:64:128", "1:64:128"]  # bfloat16 takes the registers of float16
KERNELS = {"scan_short", "scan_chunks", "normalise"}


def symbols(library: Path | None, option: str) -> set[str]:
    command = ["nm", "-D", option, str(library)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in out.splitlines()}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    """The real sources, installed as they are, for one architecture and the outermost sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("real")))
        return build_libraries(architectures="90", sizes=OUTERMOST)


@pytest.mark.slow
def test_libraries_export_their_interface_only(real: Libraries) -> None:
    assert symbols(real.scan, "--defined-only") == C_INTERFACE
    assert symbols(real.plugin, "--defined-only") == {"setLoggerFinder", "getCreators"}


@pytest.mark.slow
def test_libraries_need_neither_tensorrt_nor_another_cuda_runtime(real: Libraries) -> None:
    for library in (real.scan, real.plugin):
        lacking = symbols(library, "--undefined-only")
        assert not [name for name in lacking if re.match("cuda|bsm|.*nvinfer", name)]
        command = ["readelf", "-d", str(library)]
        needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert not re.search("cudart|nvinfer", needed)


def assert_nothing_spills(log: Path, architectures: list[str], sizes: list[str]) -> None:
    found: dict[tuple[str, str], int] = {}
    for usage in read_ptxas_log(log.read_text()):
        name = re.search("|".join(KERNELS), usage.kernel)
        assert name, usage.kernel
        assert (usage.spill_bytes, usage.stack_bytes) == (0, 0), usage
        key = name[0], usage.architecture
        found[key] = found.get(key, 0) + 1
    assert found == {(kernel, number): len(sizes) for kernel in KERNELS for number in architectures}


@pytest.mark.slow
def test_no_kernel_spills_registers_to_memory(real: Libraries) -> None:
    assert_nothing_spills(real.log, ["90"], OUTERMOST)


@pytest.mark.slow
def test_no_published_kernel_spills_on_a_chip_of_any_other_family(own_cache: Path) -> None:
    others = ["80", "100", "120"]
    libraries = build_libraries(architectures=",".join(others), plugin=False, sizes=PUBLISHED)
    assert_nothing_spills(libraries.log, others, PUBLISHED)


def small_build() -> Libraries:
    return build_libraries(architectures="90", plugin=False, sizes=[SIZE])


@pytest.mark.slow
def test_failed_build_names_its_log_and_leaves_nothing_else(sources: Path, own_cache: Path) -> None:
    (sources / "cuda/scan_instance.cu").write_text("#error no such luck\n")
    with pytest.raises(PluginError, match=r"no such luck.*: see (.*\.log)") as error:
        small_build()
    (log,) = (Path(word) for word in re.findall(r"/\S+\.log", str(error.value)))
    assert "no such luck" in log.read_text()
    assert leftovers(own_cache) == [log.name]


def test_refused_host_compiler_names_the_variable(
    sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = sources / "g++-99"
    program.write_text('#!/bin/sh\nexec g++ -U__GNUC__ -D__GNUC__=99 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("CUDAHOSTCXX", str(program))
    with pytest.raises(
        PluginError, match=r"nvcc [\d.]+ does not support .*g\+\+-99, .* CUDAHOSTCXX; see"
    ):
        small_build()


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
    assert sum("Waiting" in err for _, err in outputs) == 1
    assert not leftovers(own_cache)


def test_interrupted_build_kills_its_compilers_and_leaves_nothing(
    sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = (
        'case "$*" in *scan_instance*) echo $$ > "$0.pid"; exec sleep 600;; esac; exec nvcc "$@"'
    )
    program = sources / "nvcc-that-hangs"
    program.write_text(f"#!/bin/sh\n{hangs}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CUDACXX", str(program))

    def interrupt(line: str) -> None:
        if line.startswith("["):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_libraries(architectures="90", plugin=False, sizes=[SIZE], report=interrupt, jobs=2)
    assert not Path("/proc", program.with_name(f"{program.name}.pid").read_text().strip()).exists()
    assert find_libraries() is None
    assert all(name.endswith(".log") for name in leftovers(own_cache))
