"""Checks, from its sidecar and this machine, whether a plan can run here.

A plan can only be deserialised by the version of TensorRT that built it, in native code. So a plan
that does not fit is refused before that, with the command that builds it again.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from bsmamba2.errors import EngineError, PluginError, short_reason
from bsmamba2.formats.trt_plan import BUILDERS, TITLES, PlanRecord
from bsmamba2.system.files import sha256_file


def find_builder(path: Path, record: PlanRecord) -> ModuleType:
    """Imports the TensorRT module that built the plan, in exactly the same version.

    Raises:
        EngineError: It is not installed, does not load, or has another version.
    """
    module, wanted = BUILDERS[record.builder], f"{record.builder}=={record.builder_version}"
    built = f"{path} was built with {TITLES[record.builder]} {record.builder_version}"
    try:
        trt = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EngineError(f"{built}, which is not installed: pip install {wanted}.") from error
    except Exception as error:  # a missing or broken library raises anything
        raise EngineError(
            f"{built}, which does not load ({short_reason(error)}): pip install {wanted}."
        ) from error
    if trt.__version__ != record.builder_version:
        raise EngineError(
            f"{built}, but {trt.__version__} is installed here: run '{record.command}' here, or "
            f"pip install {wanted}."
        )
    return trt


def find_plugin(path: Path, record: PlanRecord) -> Path:
    """Finds the plugin library for a plan, without building it, which takes minutes.

    Raises:
        PluginError: The plan needs other kernels than those of this version, or the plugin is not
            built.
    """
    from bsmamba2.formats.operator import PLUGIN_VERSION
    from bsmamba2.plugins.build import find_libraries, sources_sha256

    if record.plugin.version != PLUGIN_VERSION:
        raise PluginError(
            f"{path} needs version {record.plugin.version} of the plugin, but this bsmamba2 has "
            f"version {PLUGIN_VERSION}: run '{record.command}'."
        )
    sources = record.plugin.sources_sha256
    if sources and sources != sources_sha256():
        raise PluginError(
            f"{path} was built with the plugin of another bsmamba2, whose kernels differ: run "
            f"'{record.command}'."
        )
    libraries = find_libraries(plugin=True)
    if libraries is None or libraries.plugin is None:
        raise PluginError(
            f"{path} needs the TensorRT plugin, which is not built here: run 'bsm plugin build'."
        )
    # Libraries built from equal sources are interchangeable.
    if not sources and sha256_file(libraries.plugin) != record.plugin.library_sha256:
        raise PluginError(
            f"{path} was built with a plugin library of unknown sources, and it is not the "
            f"library built here: run '{record.command}'."
        )
    return libraries.plugin


def check_architecture(path: Path, record: PlanRecord, capability: str, gpu: str) -> None:
    """Raises EngineError unless the plan runs on GPUs of this compute capability.

    Args:
        path: The plan.
        record: What its sidecar says; a plan without architectures runs on all.
        capability: The GPU's compute capability, such as "9.0".
        gpu: The GPU's name.
    """
    if record.architectures and capability not in record.architectures:
        raise EngineError(
            f"{path} was built for GPUs of compute capability "
            f"{' or '.join(record.architectures)}, but the {gpu} here has {capability}: run "
            f"'{record.command}' here."
        )


def check_sizes(path: Path, record: PlanRecord, batch: int, frames: int) -> None:
    """Raises EngineError unless the plan takes batches of this size with this many frames."""
    fewest, _, most = record.frames
    if not fewest <= frames <= most:
        taken = f"{fewest} to {most}" if fewest < most else f"{most}"
        raise EngineError(
            f"{path} takes {taken} frames at a time, not {frames}: use the .onnx file, or run "
            f"'{record.command}' with --frames for more."
        )
    if not record.batch[0] <= batch <= record.batch[2]:
        raise EngineError(
            f"{path} takes {record.batch[0]} to {record.batch[2]} chunks at a time, not {batch}: "
            f"run '{record.command}' with another --batch."
        )
