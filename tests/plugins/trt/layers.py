"""Layers for tests, and the message of a layer that refuses something."""

from __future__ import annotations

import struct
from dataclasses import replace

import torch
from plugin_host import FLOAT32, INT32, Host, Spec

from bench.common.scans import head_sizes

SIZES = head_sizes(2, 32, 32)
FOUR_HEADS = head_sizes(4, 32, 32)
"""Sizes that take several blocks: GPUs without clusters need a second step for the norm."""
SHAPES = ((3, 5, 2 * 2 * 97), (2, 128, 4), (2, 128), (2, 2), (2, 2), (2, 2))
"""Shapes of the inputs for SIZES."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Attributes = dict[str, tuple[int, bytes]]


def attributes(n_heads: int = 2, d_state: int = 32, eps: float = 1e-5) -> Attributes:
    return {
        "n_heads": (INT32, struct.pack("i", n_heads)),
        "d_state": (INT32, struct.pack("i", d_state)),
        "eps": (FLOAT32, struct.pack("f", eps)),
    }


def specs(dtype: torch.dtype = torch.float32) -> list[Spec]:
    """Returns inputs that match; N and L are free."""
    signal = [Spec(shape, dtype) for shape in SHAPES[:3]]
    signal[0] = replace(signal[0], free=(0, 1))
    return signal + [Spec(shape) for shape in SHAPES[3:]]


def one_message(host: Host) -> str:
    """The sentence of a refusal, without the operator's name."""
    name, _, sentence = host.messages().partition(": ")
    assert name == "bsm::BiMamba2Scan"
    assert sentence.endswith("\n")
    assert sentence.count("\n") == 1
    return sentence.rstrip()
