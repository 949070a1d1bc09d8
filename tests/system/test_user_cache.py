"""Laws of the user's cache: nobody else can put files there that are loaded from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsmamba2.errors import FileError
from bsmamba2.plugins.build import find_libraries
from bsmamba2.system.user_cache import cache_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_folders_are_made_private_and_found_again(cache: Path):
    folder = cache_folder("kernels")
    assert folder == cache / "bsmamba2/kernels" == cache_folder("kernels")
    for path in (folder, folder.parent, cache):
        assert path.stat().st_mode & 0o777 == 0o700


def test_looking_into_a_folder_makes_none(cache: Path):
    assert cache_folder("kernels", make=False) == cache / "bsmamba2/kernels"
    assert find_libraries() is None
    assert not cache.exists()


@pytest.mark.parametrize("name", ["bsmamba2", "bsmamba2/kernels"])
def test_folder_that_others_can_write_is_refused(cache: Path, name: str):
    cache_folder("kernels")
    (cache / name).chmod(0o770)
    with pytest.raises(FileError, match=r"Others can write into .*: delete it"):
        cache_folder("kernels")


def test_folder_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch):
    cache_folder("kernels")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    with pytest.raises(FileError, match=r"belongs to another user: .*XDG_CACHE_HOME"):
        cache_folder("kernels")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives links away")
@pytest.mark.parametrize("name", ["bsmamba2", "bsmamba2/kernels"])
def test_links_of_another_user_are_not_followed(cache: Path, tmp_path: Path, name: str):
    """Not even if they lead to a folder of our own: they could lead elsewhere a moment later."""
    cache_folder("kernels")
    link = cache / name
    link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "moved")
    cache_folder("kernels")  # a link of our own is followed
    os.lchown(link, 1234, 1234)
    with pytest.raises(FileError, match="belongs to another user"):
        cache_folder("kernels")


def test_folder_whose_content_everybody_can_replace_is_refused(cache: Path):
    cache_folder("kernels")
    cache.chmod(0o777)
    with pytest.raises(FileError, match=r"Other users can replace .*XDG_CACHE_HOME"):
        cache_folder("kernels")
    cache.chmod(0o1777)  # like /tmp: only a file's owner can replace it
    cache_folder("kernels")


def test_folder_that_cannot_be_made_is_a_sentence(cache: Path):
    cache.write_text("")
    with pytest.raises(FileError, match=r"^Cannot use .*: File exists; .*XDG_CACHE_HOME .*\.$"):
        cache_folder("kernels")
