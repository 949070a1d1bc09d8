"""Fakes of the tools on a machine with a GPU, for `bench/gpu/measure.py`."""

from __future__ import annotations

import os
from pathlib import Path

CUSTOMIZE = """
import sys
ABSENT = {"soxr", "soundfile", "_soundfile", "click", "tqdm"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name in ABSENT else self.finder.find_spec(name, path, target)
sys.path[:] = [folder for folder in sys.path if "__editable__" not in folder]
sys.meta_path[:] = [Without(f) for f in sys.meta_path if "editable" not in repr(f).lower()]
"""

SANITIZER = """#!/bin/sh
# Runs what it is given, and finds the planted error.
tool=$2; shift 6
case "$tool" in racecheck) what=RACECHECK; of=hazards;; *) what=ERROR; of=errors;; esac
"$@" || exit
case "$*" in
    *'"plant": true'*) echo "========= ERROR SUMMARY: 3 errors"; exit 86;;
    *) echo "========= $what SUMMARY: ${FOUND:-0} $of displayed"; [ -z "$FOUND" ] || exit 86;;
esac
"""

NCU = r"""#!/bin/sh
# Runs what it is given, and writes a table of one kernel.
while [ "$1" != --log-file ]; do shift; done
log=$2; shift 2
"$@" || exit
cat >"$log" <<'END'
==PROF== Connected to process 1
"ID","Kernel Name","Block Size","Grid Size","Section","Metric Name","Metric Unit","Metric Value"
"0","scan_chunks","(256, 1, 1)","(8, 62, 2)","GPU Speed Of Light","DRAM Throughput","%","71.5"
"0","scan_chunks","(256, 1, 1)","(8, 62, 2)","GPU Speed Of Light","Duration","us","150.2"
"0","scan_chunks","(256, 1, 1)","(8, 62, 2)","GPU Speed Of Light","","",""
"0","scan_chunks","(256, 1, 1)","(8, 62, 2)","Memory Workload","Duration","us","1"
"1","normalise","(32, 1, 1)","(9, 1, 1)","Launch Statistics","Registers Per Thread","register","39"
==PROF== Disconnected
END
"""

MAMBA_SSM = '''
"""mamba_ssm's scan in a plain loop."""
import torch
from torch.nn.functional import softplus

causal_conv1d_fwd_function = None

def mamba_chunk_scan_combined(
    x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False
):
    assert dt_softplus and z is None and chunk_size & (chunk_size - 1) == 0
    step = softplus(dt.float() + dt_bias)
    h, y = torch.zeros(*x[:, 0].shape, B.shape[-1]), []
    for t in range(x.shape[1]):
        update = (step[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None].float()
        h = torch.exp(A * step[:, t])[..., None, None] * h + update
        y.append((h * C[:, t, :, None].float()).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(y, dim=1).to(x.dtype)
'''


def strange_environment(folder: Path) -> dict[str, str]:
    """Returns variables: fakes on PATH, neither bsmamba2 nor packages that may be missing there."""
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    environment = dict(os.environ, PYTHONPATH=str(folder), XDG_CACHE_HOME=str(folder / "cache"))
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    environment.pop("BSM_SCAN_LIBRARY", None)
    return environment


def compute_sanitizer(folder: Path) -> Path:
    """Writes a fake compute-sanitizer."""
    return _program(folder / "compute-sanitizer", SANITIZER)


def ncu(folder: Path) -> Path:
    """Writes a fake ncu."""
    return _program(folder / "ncu", NCU)


def _program(path: Path, text: str) -> Path:
    path.write_text(text)
    os.chmod(path, 0o755)
    return path


def mamba_checkout(folder: Path) -> Path:
    """A checkout of state-spaces/mamba whose __init__ must not run."""
    triton = folder / "mamba_ssm" / "ops" / "triton"
    triton.mkdir(parents=True)
    (folder / "mamba_ssm" / "__init__.py").write_text("raise ImportError('needs CUDA')\n")
    (triton.parent / "__init__.py").touch()
    (triton / "__init__.py").touch()
    (triton / "ssd_combined.py").write_text(MAMBA_SSM)
    return folder
