"""Fixtures of the plugin library, driven by a program that takes TensorRT's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from plugin_host import Host, Plugin


@pytest.fixture(scope="session")
def loaded(plugin_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    from native import compile_host
    from plugin_host import Host

    return Host(compile_host(tmp_path_factory.mktemp("host") / "libhost.so"), plugin_library)


@pytest.fixture
def host(loaded: Host) -> Iterator[Host]:
    """The host; fails the test if it leaves logged messages unread."""
    loaded.messages()
    yield loaded
    assert loaded.messages() == ""


@pytest.fixture
def plugin(host: Host) -> Plugin:
    from layers import attributes

    plugin = host.create(attributes())
    assert plugin
    return plugin
