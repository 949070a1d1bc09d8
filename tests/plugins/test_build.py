"""Laws of building once and finding builds again, with a fake compiler."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_builds import SIZE, leftovers

from bsmamba2.errors import BsmError, FileError, PluginError
from bsmamba2.plugins import architectures, build
from bsmamba2.plugins.build import Libraries, build_libraries, find_libraries, find_or_build
from bsmamba2.plugins.compilation import Options

ROOT = Path(__file__).parents[2]


def make(*, force: bool = False, arch: str = "90") -> Libraries:
    return build_libraries(architectures=arch, plugin=False, force=force)


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """A folder that looks like TensorRT's headers."""
    (tmp_path / "NvInferRuntime.h").write_text("")
    return tmp_path


# --- the cache ---


def test_same_sources_are_built_once(compiled: list[Options], own_cache: Path) -> None:
    assert make() == make()
    assert len(compiled) == 1
    assert not leftovers(own_cache)


def _change_a_source(patch: pytest.MonkeyPatch, sources: Path) -> None:
    (sources / "cuda/scan.cu").write_text("// changed\n")


def _change_flags(patch: pytest.MonkeyPatch, sources: Path) -> None:
    patch.setenv("NVCC_APPEND_FLAGS", "-g")


def _change_compiler(patch: pytest.MonkeyPatch, sources: Path) -> None:
    program = sources / "g++-99"
    program.write_text("#!/bin/sh\necho g++ 99\n")
    program.chmod(0o755)
    patch.setenv("CUDAHOSTCXX", str(program))


@pytest.mark.parametrize("change", [_change_a_source, _change_flags, _change_compiler])
def test_changed_sources_flags_or_compiler_build_again(
    compiled: list[Options],
    sources: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    before = make()
    change(monkeypatch, sources)
    assert make().folder != before.folder
    assert len(compiled) == 2


def test_headers_and_architectures_decide_too(compiled: list[Options], headers: Path) -> None:
    built = {make().folder, make(arch="80").folder}
    for text in ("one", "another"):
        (headers / "NvInferRuntime.h").write_text(text)
        built.add(build_libraries(architectures="90", include_dir=headers).folder)
    assert len(built) == 4


def test_key_does_not_depend_on_where_sources_lie(
    compiled: list[Options], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    shutil.copytree(sources, tmp_path / "copy")
    monkeypatch.setattr(build, "source_folder", lambda: tmp_path / "copy")
    assert make() == first


def test_force_builds_again_under_the_same_name(compiled: list[Options]) -> None:
    first = make()
    assert first.scan.read_text().endswith("1")
    assert make(force=True).folder == first.folder
    assert first.scan.read_text().endswith("2")


def _write(scan: Path) -> None:
    scan.write_text("something else")


def _let_others_write(scan: Path) -> None:
    scan.chmod(0o720)


def _link(scan: Path) -> None:
    """The bytes are right, but the link's target lies where other users may be able to write."""
    scan.rename(scan.parents[3] / "scan.so")
    scan.symlink_to(scan.parents[3] / "scan.so")


@pytest.mark.parametrize("change", [_write, Path.unlink, _let_others_write, _link])
def test_library_that_is_not_the_one_built_is_not_found_but_built_again(
    compiled: list[Options], caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    change(make().scan)
    assert find_libraries() is None
    assert "has changed since it was built" in caplog.text
    assert make().scan.read_text().endswith("2")
    assert find_libraries()


def test_sources_that_change_under_the_compiler_are_refused(
    compiled: list[Options], sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_libraries = build.compile_libraries

    def changing(*arguments: object) -> None:
        (sources / "cuda/scan.cu").write_text("")
        compile_libraries(*arguments)

    monkeypatch.setattr(build, "compile_libraries", changing)
    with pytest.raises(PluginError, match="changed during the build: build again"):
        make()
    assert find_libraries() is None
    assert all(name.endswith(".log") for name in leftovers(own_cache))


@pytest.mark.parametrize("umask", [0, 0o077])
def test_builds_are_private_whatever_the_umask(compiled: list[Options], umask: int) -> None:
    before = os.umask(umask)
    try:
        scan = make().scan
    finally:
        os.umask(before)
    for path in (scan, *list(scan.parents)[:3]):
        assert path.stat().st_mode & 0o777 == 0o700
    assert find_libraries()


# --- finding ---


def test_nothing_is_found_before_the_first_build(compiled: list[Options]) -> None:
    assert find_libraries() is None


def test_found_only_for_the_present_sources(compiled: list[Options], sources: Path) -> None:
    make()
    (sources / "cuda/scan.cu").write_text("// changed")
    assert find_libraries() is None


def test_found_only_if_it_runs_on_the_gpus_here(
    compiled: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = make(arch="80")
    make(arch="120")
    monkeypatch.setattr(architectures, "gpus", lambda: (75, 86))
    assert find_libraries() == older
    monkeypatch.setattr(architectures, "gpus", lambda: (90,))
    assert find_libraries() is None


def test_plugin_is_found_where_it_was_built_without_any_compiler(
    compiled: list[Options], headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    assert find_libraries(plugin=True) is None
    built = build_libraries(architectures="90", include_dir=headers)
    assert built.plugin
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDACXX", raising=False)
    assert find_libraries(plugin=True) == find_or_build() == built


@pytest.mark.parametrize(("gpus", "built_for"), [((), "all"), ((90,), "native")])
def test_a_missing_build_is_made_for_the_gpus_here_or_for_all(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, gpus: tuple[int, ...], built_for: str
) -> None:
    asked: list[str] = []

    def ask(*, architectures: str, report: object) -> None:
        asked.append(architectures)

    monkeypatch.setattr(architectures, "gpus", lambda: gpus)
    monkeypatch.setattr(build, "build_libraries", ask)
    find_or_build()
    assert asked == [built_for]


def test_build_of_some_sizes_is_not_found(compiled: list[Options]) -> None:
    build_libraries(architectures="90", plugin=False, sizes=[SIZE])
    assert find_libraries() is None


# --- errors, and what is installed ---


def test_missing_headers_name_the_folder_or_the_variable_and_the_option(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PluginError, match=f"^No NvInferRuntime.h in {re.escape(str(tmp_path))}"):
        build_libraries(architectures="90", include_dir=tmp_path)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(PluginError, match=r"TENSORRT_INCLUDE_DIR .* build --no-tensorrt"):
        build_libraries(architectures="90")


@pytest.mark.parametrize("look", [make, find_libraries])
def test_cache_that_others_can_write_is_refused(
    compiled: list[Options], own_cache: Path, look: Callable[[], object]
) -> None:
    make()
    (own_cache / "bsmamba2/plugins").chmod(0o777)
    with pytest.raises(FileError, match=r"Others can write into .*: delete it"):
        look()


def test_without_gpu_native_names_the_option(own_cache: Path) -> None:
    with pytest.raises(BsmError, match=r"No NVIDIA GPU .* --arch 90 or all"):
        build_libraries(plugin=False)


def test_every_source_is_in_the_package() -> None:
    installed = build.source_folder()
    for pattern in ("include/*", "cuda/*", "tensorrt/*"):
        for path in (ROOT / "plugins").glob(pattern):
            assert (installed / path.relative_to(ROOT / "plugins")).is_file(), path
