"""A parsed network for Polygraphy's tools, in which every scan is the plugin.

Polygraphy takes a script in place of a model. Three lines make one of ours, `network.py`:

    from bsmamba2.plugins.polygraphy_network import parsed_network

    def load_network():
        return parsed_network("model.onnx")

Its own way, `--plugins`, only opens a library, which registers nothing, and it would not notice
that the parser then takes the operator's body. Polygraphy is needed here and nowhere else.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from polygraphy import config
from polygraphy.backend.trt import get_trt_logger
from polygraphy.logger import G_LOGGER

from bsmamba2.errors import BsmError, PluginError
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import NAME, SCAN_NODE
from bsmamba2.plugins.build import find_or_build
from bsmamba2.plugins.tensorrt_library import check_plugin_layers, load_plugin, strongly_typed

_VARIABLE = "POLYGRAPHY_USE_TENSORRT_RTX"


def parsed_network(model: str | Path, plugin: str | Path | None = None) -> tuple[Any, Any, Any]:
    """Parses an exported model with TensorRT, or TensorRT-RTX where Polygraphy is told to use it.

    Args:
        model: An ONNX file of `bsm export`.
        plugin: `libbsm_trt_plugin.so`; None takes that of `bsm plugin build`, which needs neither
            a compiler nor a GPU, and builds it when it is not there.

    Returns:
        Builder, network and parser, which is what Polygraphy expects of a script.

    Raises:
        PolygraphyException: No such model, TensorRT is not installed, the plugin cannot be built
            or loaded, or the model cannot be parsed with every scan as the plugin. Polygraphy's
            tools print it as one line and exit with 1.
    """
    try:
        return _parse(model, plugin)
    except BsmError as error:
        G_LOGGER.critical(str(error))  # raises
        raise


def _parse(model: str | Path, plugin: str | Path | None) -> tuple[Any, Any, Any]:
    scan_nodes = read_onnx_file(model).node_counts.get(SCAN_NODE, 0)
    if not scan_nodes:
        raise PluginError(f"{model} has no {NAME}: make it with 'bsm export'.")
    trt = _tensorrt()
    load_plugin(trt, plugin or _built_plugin())
    logger = get_trt_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise PluginError(f"{model} cannot be parsed: {parser.get_error(0).desc()}.")
    check_plugin_layers(network, scan_nodes)
    return builder, network, parser


def _tensorrt() -> ModuleType:
    """The module that Polygraphy uses, too."""
    name = "tensorrt_rtx" if config.USE_TENSORRT_RTX else "tensorrt"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"{name} is not installed, and Polygraphy was told to use it: install it, or set "
            f"{_VARIABLE} to {int(not config.USE_TENSORRT_RTX)} for the other one."
        ) from error


def _built_plugin() -> Path:
    plugin = find_or_build(report=G_LOGGER.info).plugin
    assert plugin is not None
    return plugin
