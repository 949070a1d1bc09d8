"""The checkout around this folder, and one of state-spaces/mamba that is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


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
