"""Compiles and tunes mamba_ssm's kernels while the GPU has nothing else to do; fills ~/.triton.

python bench/gpu/warm.py MAMBA_CHECKOUT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.checkout import use_mamba_ssm

use_mamba_ssm(Path(sys.argv[1]))

import torch

from bench.common.scans import FULL, scan_inputs
from bsmamba2.models.kernels import mamba_ssm_direction

for N, L in ((62, 801), (801, 62)):
    start_s = time.perf_counter()
    inputs = scan_inputs(N, L, FULL, device="cuda", dtype=torch.float32).to(torch.float16)
    for number in (0, 1):
        mamba_ssm_direction(
            *inputs.direction(number),
            d_state=FULL.d_state,
            eps=inputs.eps,
            reverse=number == 1,
        )
    torch.cuda.synchronize()
    print(f"triton {N} {L}: {time.perf_counter() - start_s:.0f} s", flush=True)
