"""Imports bsmamba2 from the checkout around this folder, whether it is installed or not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
_NEVER_CALLED = ("soxr",)  # a benchmark resamples nothing, but the runtime imports it


def use_checkout() -> None:
    """Makes `bsmamba2` and its rooms `export`, `plugins` and `runtime` those of the checkout.

    As pyproject.toml maps them: its package-dir says that they lie beside bsmamba2/. Does nothing
    once bsmamba2 is imported.
    """
    for name in _NEVER_CALLED:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
    if "bsmamba2" in sys.modules:
        return
    sys.path.insert(0, str(ROOT))
    try:
        package = importlib.import_module("bsmamba2")
    finally:
        sys.path.remove(str(ROOT))
    package.__path__.append(str(ROOT))


def use_mamba_ssm(folder: Path) -> None:
    """Makes `mamba_ssm` that of a checkout of state-spaces/mamba, without its __init__.

    That imports every model of the package and CUDA extensions that the scan does not need.

    Raises:
        FileNotFoundError: The folder holds no such package.
    """
    package = folder / "mamba_ssm"
    if not (package / "ops" / "triton" / "ssd_combined.py").is_file():
        raise FileNotFoundError(f"{folder} is no checkout of state-spaces/mamba")
    module = ModuleType("mamba_ssm")
    module.__path__ = [str(package)]
    sys.modules["mamba_ssm"] = module
