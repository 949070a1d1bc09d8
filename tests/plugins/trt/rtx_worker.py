"""Parses an ONNX file with TensorRT-RTX, and prints the result as JSON.

    python rtx_worker.py model.onnx [--plugin libbsm_trt_plugin.so] [--as-installed]

Each file gets its own process, because a registered plugin stays registered, and TensorRT-RTX
aborts the process if it finds no library under the name that it opens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt

from bsmamba2.errors import PluginError
from bsmamba2.plugins import tensorrt_library
from bsmamba2.plugins.tensorrt_library import check_plugin_layers, count_plugin_layers, load_plugin


class Logger(trt.ILogger):
    """Keeps errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--plugin", type=Path)
    parser.add_argument("--as-installed", action="store_true", help="do not provide the name")
    parser.add_argument("--scan-nodes", type=int, default=0)
    options = parser.parse_args()
    logger = Logger()
    if options.as_installed:
        tensorrt_library.provide_rtx_name = lambda: None
    builder = trt.Builder(logger)
    if options.plugin:
        load_plugin(trt, options.plugin)
    network = builder.create_network(0)
    onnx = trt.OnnxParser(network, logger)
    report: dict[str, Any] = {"parsed": onnx.parse(options.model.read_bytes())}
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    report |= {
        "types": [layer.type.name for layer in layers],
        "names": [layer.name for layer in layers],
        "plugins": count_plugin_layers(network),
        "check": check(network, options.scan_nodes),
    }
    print(json.dumps(report | {"errors": logger.errors}))


def check(network: Any, scan_nodes: int) -> str:
    """The error of this package's check; "" if it passes."""
    try:
        check_plugin_layers(network, scan_nodes)
    except PluginError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
