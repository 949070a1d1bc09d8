"""Laws of building and caching: most with a compiler that only pretends, some with nvcc."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from small_builds import ARCHITECTURE, SIZE, folders, leftovers, write_sources

from bsmamba2.errors import PluginError
from bsmamba2.plugins import architectures, build, cache
from bsmamba2.plugins.build import build_libraries, find_libraries, find_or_build
from bsmamba2.plugins.cache import Libraries
from bsmamba2.plugins.compilation import Options

ROOT = Path(__file__).parents[2]


def make(*, force: bool = False, plugin: bool = False, arch: str = ARCHITECTURE) -> Libraries:
    return build_libraries(architectures=arch, plugin=plugin, force=force)


# --- the cache, by a compiler that pretends ---


def test_same_sources_are_built_once(compiled: list[Options], own_cache: Path) -> None:
    assert make() == make()
    assert len(compiled) == 1
    assert not leftovers(own_cache)


def test_changed_source_builds_again(compiled: list[Options], sources: Path) -> None:
    before = make()
    with (sources / "cuda/scan.cu").open("a") as file:
        file.write("// changed\n")
    assert make() != before
    assert len(compiled) == 2


@pytest.mark.parametrize("variable", ["NVCC_APPEND_FLAGS", "CXXFLAGS"])
def test_changed_flags_build_again(
    compiled: list[Options], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    make()
    monkeypatch.setenv(variable, "-g")
    make()
    assert len(compiled) == 2


def test_other_compiler_builds_again(
    compiled: list[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    program = tmp_path / "g++-99"
    program.write_text("#!/bin/sh\necho g++ 99\n")
    program.chmod(0o755)
    monkeypatch.setenv("CUDAHOSTCXX", str(program))
    make()
    assert len(compiled) == 2


def test_force_builds_again_under_the_same_name(compiled: list[Options]) -> None:
    first = make()
    assert first.scan.read_text().endswith("1")
    assert make(force=True) == first
    assert first.scan.read_text().endswith("2")


def test_changed_library_is_built_again(compiled: list[Options]) -> None:
    make().scan.write_text("something else")
    assert make().scan.read_text().endswith("2")


def test_record_without_its_library_is_built_again(compiled: list[Options]) -> None:
    make().scan.unlink()
    assert make().scan.exists()


def test_leftovers_of_a_killed_build_do_not_matter(
    compiled: list[Options], own_cache: Path
) -> None:
    (own_cache / "bsmamba2/plugins/.partial-abcdefgh/work").mkdir(parents=True)
    make()
    assert not leftovers(own_cache)


def test_sources_that_change_under_the_compiler_are_refused(
    compiled: list[Options], sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build.run_cmake

    def changing(*arguments: object) -> None:
        (sources / "cuda/scan.cu").write_text("")
        run(*arguments)

    monkeypatch.setattr(build, "run_cmake", changing)
    with pytest.raises(PluginError, match="changed while they were built: build again"):
        make()
    assert not folders(own_cache)


def test_cache_is_private(compiled: list[Options], own_cache: Path) -> None:
    folder = make().scan.parent
    for path in (folder, *folder.parents[:2]):
        assert path.stat().st_mode & 0o777 == 0o700


def test_cache_of_another_user_is_refused(
    compiled: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    for look in (make, find_libraries):
        with pytest.raises(PluginError, match=r"belongs to another user: .*XDG_CACHE_HOME"):
            look()


def test_cache_that_others_can_write_is_refused(compiled: list[Options], own_cache: Path) -> None:
    make()
    (own_cache / "bsmamba2/plugins").chmod(0o777)
    with pytest.raises(PluginError, match=r"Others can write into .*: delete it"):
        find_libraries()


def test_cache_in_a_folder_whose_content_everybody_can_exchange_is_refused(
    compiled: list[Options], own_cache: Path
) -> None:
    make()
    own_cache.chmod(0o777)
    for look in (make, find_libraries):
        with pytest.raises(PluginError, match=r"Everybody can exchange .*XDG_CACHE_HOME"):
            look()
    own_cache.chmod(0o1777)  # as of /tmp: only its owner can
    assert find_libraries()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
@pytest.mark.parametrize("name", ["bsmamba2", "bsmamba2/plugins"])
def test_links_of_another_user_are_not_followed(
    compiled: list[Options], own_cache: Path, tmp_path: Path, name: str
) -> None:
    """Even to a folder of ours: they could lead elsewhere a moment later."""
    make()
    link = own_cache / name
    link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "moved")
    assert find_libraries()  # one's own
    os.lchown(link, 1234, 1234)
    for look in (make, find_libraries):
        with pytest.raises(PluginError, match="belongs to another user"):
            look()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_libraries_are_private_whatever_the_umask(compiled: list[Options], umask: int) -> None:
    before = os.umask(umask)
    try:
        assert make().scan.stat().st_mode & 0o077 == 0
    finally:
        os.umask(before)
    assert find_libraries()


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_library_that_others_can_write_is_not_found(compiled: list[Options], mode: int) -> None:
    make().scan.chmod(mode)
    assert find_libraries() is None


def test_library_that_is_a_link_is_not_found(compiled: list[Options], tmp_path: Path) -> None:
    """Its bytes are right, but they lie where nobody has looked at who can write."""
    scan = make().scan
    scan.rename(tmp_path / "scan.so")
    scan.symlink_to(tmp_path / "scan.so")
    assert find_libraries() is None


def test_other_folders_of_the_cache_are_as_private(own_cache: Path) -> None:
    cache.make_folder("kernels").chmod(0o777)
    with pytest.raises(PluginError, match="Others can write into"):
        cache.make_folder("kernels")


def test_cache_that_cannot_be_made_is_a_sentence(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(PluginError, match=r"^Cannot use .*: File exists; .*XDG_CACHE_HOME\.$"):
        make()


# --- finding ---


def test_nothing_is_found_before_the_first_build(compiled: list[Options]) -> None:
    assert find_libraries() is None


def test_found_without_any_compiler(
    compiled: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = make()
    monkeypatch.setenv("PATH", "")
    assert find_libraries() == libraries


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


def test_plugin_is_found_only_where_it_was_built(compiled: list[Options], tmp_path: Path) -> None:
    make()
    assert find_libraries(plugin=True) is None
    (tmp_path / "NvInferRuntime.h").write_text("")
    built = build_libraries(architectures="90", include_dir=tmp_path)
    assert built.plugin
    assert find_libraries(plugin=True) == built


def test_build_that_is_there_is_taken_without_compiler_or_gpu(
    compiled: list[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "NvInferRuntime.h").write_text("")
    built = build_libraries(architectures="90", include_dir=tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDACXX", raising=False)
    assert find_or_build() == built
    assert len(compiled) == 1


@pytest.mark.parametrize(("gpus", "built_for"), [((), "all"), ((90,), "native")])
def test_build_that_is_not_there_is_made_for_the_gpus_here_or_for_all(
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


def test_changed_library_is_not_found(
    compiled: list[Options], caplog: pytest.LogCaptureFixture
) -> None:
    make().scan.write_text("something else")
    assert find_libraries() is None
    assert "not what was built there" in caplog.text


# --- errors ---


def test_folder_without_headers_is_named(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=f"^No NvInferRuntime.h in {re.escape(str(tmp_path))}"):
        build_libraries(architectures="90", include_dir=tmp_path)


def test_missing_headers_name_the_variable_and_the_option(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(PluginError, match=r"TENSORRT_INCLUDE_DIR .*: --no-tensorrt"):
        build_libraries(architectures="90")


def test_without_gpu_native_names_the_option(own_cache: Path) -> None:
    with pytest.raises(PluginError, match=r"No NVIDIA GPU .* --arch 90 or --arch all"):
        build_libraries(plugin=False)


# --- what is installed ---


def test_every_source_is_in_the_package() -> None:
    installed = build.source_folder()
    for pattern in ("CMakeLists.txt", "*.sh", "include/*", "cuda/*", "tensorrt/*"):
        for path in (ROOT / "plugins").glob(pattern):
            assert (installed / path.relative_to(ROOT / "plugins")).is_file(), path


def test_key_does_not_depend_on_where_sources_lie(
    compiled: list[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    copy = write_sources(tmp_path / "copy")
    with monkeypatch.context() as patch:
        patch.setattr(build, "source_folder", lambda: copy)
        assert make() == first
