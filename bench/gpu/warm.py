"""Compiles and tunes mamba_ssm's kernels while the GPU has nothing else to do; fills ~/.triton.

python bench/gpu/warm.py MAMBA_CHECKOUT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from checkout import use_checkout, use_mamba_ssm

use_checkout()
use_mamba_ssm(Path(sys.argv[1]))

import torch
from gpu_cases import FULL, make_case

from bsmamba2.models.kernels import mamba_ssm_direction

for N, L in ((62, 801), (801, 62)):
    start_s = time.perf_counter()
    case = make_case(N, L, FULL, torch.float16, torch.device("cuda"))
    for number in (0, 1):
        zxbcdt, parameters = case.direction(number, FULL.width)
        mamba_ssm_direction(zxbcdt, parameters, d_state=FULL.d_state, eps=1e-5, reverse=number == 1)
    torch.cuda.synchronize()
    print(f"triton {N} {L}: {time.perf_counter() - start_s:.0f} s", flush=True)
