"""The plugin in TensorRT and TensorRT-RTX: finds headers, loads the plugin, counts its layers.

TensorRT's registry calls the library's `getCreators`. Merely opening the library, as `ctypes.CDLL`
and LD_PRELOAD do, registers nothing: use `load_plugin` or trtexec's `--dynamicPlugins`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from bsmamba2.errors import PluginError
from bsmamba2.formats.operator import OP_TYPE, PLUGIN_NAMESPACE, PLUGIN_VERSION
from bsmamba2.plugins.rtx_name import provide_rtx_name
from bsmamba2.system.files import existing_file

OLDEST_HEADERS = 10
"""Major version of TensorRT that introduced the interfaces of the plugin."""

_VARIABLE = "TENSORRT_INCLUDE_DIR"
_MAJOR = re.compile(r"^#define (?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) (\d+)", re.MULTILINE)


def find_include_dir() -> Path:
    """Finds the folder of TensorRT's headers.

    Takes the folder that TENSORRT_INCLUDE_DIR names, or the first one found in an installed SDK, in
    Debian's and conda's packages, and in the wheel `kernel-lens`, which contains the headers.

    Raises:
        PluginError: There are no headers, TENSORRT_INCLUDE_DIR names a folder without them, or they
            belong to an older TensorRT.
    """
    named = os.environ.get(_VARIABLE)
    for folder in [Path(named)] if named else _usual_folders():
        if (folder / "NvInferRuntime.h").is_file():
            _check_version(folder)
            return folder
    if named:
        raise PluginError(
            f"{_VARIABLE} names {named}, which has no NvInferRuntime.h: correct or unset it."
        )
    raise PluginError(
        "No TensorRT headers found: set TENSORRT_INCLUDE_DIR to the folder of NvInferRuntime.h "
        "in TensorRT's SDK, or pip install --no-deps kernel-lens==2.0.1, which contains them."
    )


def load_plugin(trt: ModuleType, path: str | Path) -> None:
    """Registers the plugin library, so that the ONNX parser uses it and plans that need it load.

    The plugin stays registered for the life of the process; later calls change nothing, whatever
    file they name.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        path: The file `libbsm_trt_plugin.so`.

    Raises:
        BsmError: There is no such file.
        PluginError: The library cannot be opened or registered.
    """
    path = existing_file(path).resolve()
    if trt.__name__ == "tensorrt_rtx" and sys.platform == "linux":
        provide_rtx_name()
    registry = trt.get_plugin_registry()
    if _is_registered(registry):
        return
    try:
        library = ctypes.CDLL(str(path))  # opened here because TensorRT does not say why it fails
    except OSError as error:
        raise PluginError(
            f"The plugin library cannot be opened: {error}; run 'bsm plugin build'."
        ) from error
    if not hasattr(library, "getCreators"):
        raise PluginError(f"{path} is not a TensorRT plugin: it has no getCreators.")
    registry.load_library(str(path))
    if not _is_registered(registry):
        raise PluginError(
            f"{trt.__name__} {trt.__version__} did not register {OP_TYPE} from {path}: "
            "build the plugin again."
        )


def strongly_typed(trt: ModuleType) -> int:
    """Returns the flags for a strongly typed network, whose types are those of the graph.

    TensorRT 11 and TensorRT-RTX have no other networks and may lack the flag.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
    """
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def count_plugin_layers(network: Any) -> int:
    """Counts the layers of a parsed network that are this plugin.

    The parser silently replaces any other scan node by its function body in standard operators.

    Args:
        network: An `INetworkDefinition` of `tensorrt` or `tensorrt_rtx`.
    """
    return sum(_is_plugin(network, network.get_layer(i)) for i in range(network.num_layers))


def check_plugin_layers(network: Any, scan_nodes: int) -> None:
    """Checks that the parser used the plugin for every scan node.

    Args:
        network: An `INetworkDefinition` of `tensorrt` or `tensorrt_rtx`.
        scan_nodes: Number of `bsm::BiMamba2Scan` nodes in the parsed file.

    Raises:
        PluginError: The parser used the operator's function body instead.
    """
    layers = count_plugin_layers(network)
    if layers != scan_nodes:
        raise PluginError(
            f"The network has {layers} plugin layers for {scan_nodes} scan nodes: load the plugin "
            f'before parsing, and export nodes with plugin_namespace "{PLUGIN_NAMESPACE}" and '
            f'plugin_version "{PLUGIN_VERSION}".'
        )


def _is_plugin(network: Any, layer: Any) -> bool:
    if layer.type.name != "PLUGIN_V3":
        return False
    trt = sys.modules[type(network).__module__]
    layer.__class__ = trt.IPluginV3Layer  # the binding's way to cast down
    core = layer.plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return (core.plugin_name, core.plugin_namespace) == (OP_TYPE, PLUGIN_NAMESPACE)


def _is_registered(registry: Any) -> bool:
    """Whether the creator is registered: `get_creator` would log an error if it is not."""
    wanted = (OP_TYPE, PLUGIN_VERSION, PLUGIN_NAMESPACE)
    return any(
        (creator.name, creator.plugin_version, creator.plugin_namespace) == wanted
        for creator in registry.all_creators or ()  # None if one of them is of an unknown kind
    )


def _usual_folders() -> Iterator[Path]:
    for variable in ("TENSORRT_ROOT", "TENSORRT_DIR", "TRT_ROOT", "CONDA_PREFIX"):
        if root := os.environ.get(variable):
            yield Path(root) / "include"
    for prefix in (Path("/usr/local/tensorrt"), Path("/opt/tensorrt")):
        yield prefix / "include"
    for archive in sorted(Path("/usr/local").glob("TensorRT-*"), reverse=True):
        yield archive / "include"
    machine = os.uname().machine if hasattr(os, "uname") else ""
    yield Path("/usr/include") / f"{machine}-linux-gnu"
    yield Path("/usr/include")
    wheel = importlib.util.find_spec("kernel_lens")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "include" / "tensorrt"


def _check_version(folder: Path) -> None:
    """Raises if the headers lack the interfaces that the plugin implements."""
    version = folder / "NvInferVersion.h"
    text = version.read_text(errors="replace") if version.is_file() else ""
    majors = [int(major) for major in _MAJOR.findall(text)]
    if not majors or majors[0] < OLDEST_HEADERS:
        found = f"TensorRT {majors[0]}" if majors else "an unknown TensorRT"
        raise PluginError(
            f"The headers in {folder} belong to {found}: the plugin needs {OLDEST_HEADERS} or "
            "newer."
        )
