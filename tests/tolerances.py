"""How far results may lie from a float64 reference: one table for all tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

RELATIVE_RMS = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
"""RMS of the difference over the RMS of the reference, by the type of the calculation."""


def as_float64(values: Any) -> NDArray[np.float64]:
    """Converts a tensor or an array to a float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, np.float64)


def relative_rms(actual: Any, expected: Any) -> float:
    """RMS of the difference over the RMS of the expected values (over 1 if that is 0)."""
    actual, expected = as_float64(actual), as_float64(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = np.sqrt(np.mean(expected**2)) or 1.0
    return float(np.sqrt(np.mean((actual - expected) ** 2)) / scale)


def assert_close(
    actual: Any, expected: Any, dtype: torch.dtype | str = "float64", slack: float = 1
) -> None:
    """Checks that a result is within `slack` times the limit of its type; NaN never is.

    `slack` is 1 for the scan of usual inputs; a test that needs more explains why.
    """
    limit = slack * RELATIVE_RMS[str(dtype).removeprefix("torch.")]
    found = relative_rms(actual, expected)
    assert found <= limit, f"relative RMS of the difference {found:.2e}, limit {limit:.2e}"


def extreme_slack(kind: str, dtype: torch.dtype | str) -> float:
    """Slack of a chunked form on an extreme input, relative to usual inputs.

    Outputs of large states cancel, and are normalised afterwards. In addition, float32 resolves the
    sum of a chunk's log decays, here about -12000, only to 1e-3, an error in all later states.
    """
    if kind == "decay stops" and str(dtype).endswith("float32"):
        return 400
    return {"strong decay": 5, "dt large": 5}.get(kind, 3)
