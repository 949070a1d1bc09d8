"""Laws of the revision that is recorded in checkpoints and reports."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bsmamba2.system.revision import git_revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "file.py").write_text("")
    commit(tmp_path, "file.py")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, name: str) -> None:
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", "a file")


def test_a_checkout_is_of_its_commit(repository: Path):
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "-m", "a tag", "v1")
    assert git_revision(repository / "file.py") == head
    (repository / "file.py").write_text("changed")
    assert git_revision(repository / "file.py") == f"{head}+"


def test_a_package_in_a_virtual_environment_is_not_of_the_repository_around_it(repository: Path):
    package = repository / ".venv/lib/site-packages/bsmamba2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert git_revision(package / "__init__.py") is None


def test_without_git_there_is_none(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert git_revision(repository / "file.py") is None
