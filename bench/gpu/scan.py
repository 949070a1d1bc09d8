"""The scan alone: its distance from the float64 reference, and its time."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.common.report import summary
from bench.common.scans import SMALL, ScanInputs, extreme_inputs, scan_bytes, scan_inputs
from bench.gpu.clock import copy_gb_s, ratios, reason, take_turns
from bench.gpu.part import Part, finite, relative_rms
from bench.gpu.report import text
from bsmamba2.models.cuda_scan import library_scan
from bsmamba2.models.kernels import mamba_ssm_chunk, mamba_ssm_direction
from bsmamba2.models.scan import Sizes, bimamba2_scan_chunked, bimamba2_scan_reference
from bsmamba2.plugins.cuda_library import ScanLibrary

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Limits of the relative RMS, by type."""
KINDS = ("usual", "strong decay", "dt near 0", "no decay", "silence within")
LENGTHS = (1, 2, 63, 64, 65, 129, 1134)
BLOCKS = 12
"""Blocks of the full-size network, half along time and half along bands."""
_LOG_SUM_SLACK = {"strong decay": 5.0}  # outputs that cancel before the norm


def parity(part: Part) -> None:
    """Compares every type, both paths, odd lengths and extremes with the float64 reference."""
    library = ScanLibrary(part.job.library)
    rows: list[dict[str, Any]] = []
    part.values["rows"] = rows
    for N, L, sizes, kind in _parity_cases(part):
        for dtype, limit in LIMITS.items():
            row = {"N": N, "L": L, "heads": sizes.n_heads, "kind": kind, "dtype": _name(dtype)}
            try:
                case = make_case(part.device, N, L, sizes, dtype, kind)
                row |= _compare(library, case, limit * _LOG_SUM_SLACK.get(kind, 1.0))
            except Exception as error:
                row |= {"ok": False, "error": reason(error)}
            rows.append(row)
            if not row["ok"] or len(rows) <= 2 * len(LIMITS):
                part.say(f"{'' if row['ok'] else 'WRONG: '}{text(row)}")
            part.save()
    for N, L in part.paths.values():
        row = {"N": N, "L": L, "heads": part.sizes.n_heads, "kind": "batch", "dtype": "float16"}
        try:
            row |= _large_batch(part, library, N, L)
        except Exception as error:  # out of memory on a small GPU
            row |= {"ok": False, "error": reason(error)}
        rows.append(row)
    wrong = sum(not row["ok"] for row in rows)
    part.say(f"{len(rows)} cases, {wrong} wrong")
    if wrong:
        raise RuntimeError(f"{wrong} of {len(rows)} cases are wrong")


def _parity_cases(part: Part) -> Iterator[tuple[int, int, Sizes, str]]:
    for N, L in part.paths.values():
        yield N, L, part.sizes, "usual"
    for L in (1, 65) if part.job.rehearsal else LENGTHS:
        yield 3, L, part.sizes, "usual"
    for kind in KINDS[1:]:
        for L in (62,) if part.job.rehearsal or part.job.quick else (62, 801):
            yield 2, L, part.sizes, kind
    if not part.job.rehearsal:
        yield 5, 129, SMALL, "usual"


def make_case(
    device: torch.device, N: int, L: int, sizes: Sizes, dtype: torch.dtype, kind: str = "usual"
) -> ScanInputs:
    """Scan inputs with the signal and the convolution in `dtype`, the rest in float32.

    Args:
        device: Device of the tensors.
        N: Sequences.
        L: Steps.
        sizes: Sizes of a direction.
        dtype: Type of the signal.
        kind: One of KINDS.
    """
    made: dict[str, Any] = {"seed": N + L, "device": device, "dtype": torch.float32}
    if kind == "usual":
        inputs = scan_inputs(N, L, sizes, **made)
    else:
        inputs = extreme_inputs(kind, N, L, sizes, **made)
    names = ("zxbcdt", "conv_weight", "conv_bias")
    return replace(inputs, **{name: getattr(inputs, name).to(dtype) for name in names})


def _compare(library: ScanLibrary, case: ScanInputs, limit: float) -> dict[str, Any]:
    expected = bimamba2_scan_reference(*case.arguments, **case.attributes)
    poisoned = torch.full_like(expected, math.nan, dtype=case.zxbcdt.dtype)
    y = library_scan(library, *case.arguments, **case.attributes, out=poisoned)
    again = library_scan(library, *case.arguments, **case.attributes)
    rms, repeatable = relative_rms(y, expected), torch.equal(y, again)
    return {
        "relative_rms": rms,
        # RMS of a row's error; the reference has RMS 1 or less in each
        "worst_row": finite((y.double() - expected).square().mean(-1).sqrt().max()),
        "repeatable": repeatable,  # otherwise there is a race
        "ok": rms is not None and rms <= limit and repeatable,
    }


def _large_batch(part: Part, library: ScanLibrary, N: int, L: int) -> dict[str, Any]:
    """Checks that copies of a batch yield copies of its output, beyond 2^31 elements."""
    case = make_case(part.device, N, L, part.sizes, torch.float16)
    expected = library_scan(library, *case.arguments, **case.attributes)
    copies = 3 if part.job.rehearsal else 1 + (1 << 31) // case.zxbcdt.numel()
    zxbcdt = case.zxbcdt.repeat(copies, 1, 1)
    y = library_scan(library, zxbcdt, case.arguments[1], **case.attributes)
    same = all(torch.equal(part_of_y, expected) for part_of_y in y.split(N))
    return {"N": copies * N, "ok": same}


def times(part: Part) -> None:
    """Times our scan, mamba_ssm's kernels, the chunked form and a copy of as many bytes."""
    library = ScanLibrary(part.job.library)
    rows: list[dict[str, Any]] = []
    part.values |= {"mamba_ssm": _mamba_ssm()[1], "copy_gb_s": copy_gb_s(part.device), "rows": rows}
    dtypes = (torch.float16, torch.bfloat16, torch.float32)[: 1 if part.job.quick else 3]
    for dtype in dtypes:
        for path, (N, L) in part.paths.items():
            case = make_case(part.device, N, L, part.sizes, dtype)
            for figures in _time(part, library, case):
                rows.append({"dtype": _name(dtype), "path": path} | figures)
                part.say(text(rows[-1]))
            part.save()
    part.values["ms_of_12_blocks"] = {_name(dtype): _all_blocks(rows, dtype) for dtype in dtypes}


def warm(part: Part) -> None:
    """Compiles and tunes mamba_ssm's kernels in the background, before they are timed."""
    for path, (N, L) in part.paths.items():
        for name, work in _mamba_candidates(
            make_case(part.device, N, L, part.sizes, torch.float16)
        ).items():
            work()
            part.say(f"{path}, {name}")


def _mamba_ssm() -> tuple[Any, str]:
    """Returns mamba_ssm's module of kernels or None, and its description or why it is missing."""
    try:
        module = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    except Exception as error:  # whatever a package, Triton or a driver may raise
        return None, f"not importable: {reason(error)}"
    has_conv = getattr(module, "causal_conv1d_fwd_function", None) is not None
    return module, f"with{'' if has_conv else 'out'} causal_conv1d"


def _time(part: Part, library: ScanLibrary, case: ScanInputs) -> Iterator[dict[str, Any]]:
    """Yields a row per candidate: its time, our speed-up over it, its distance from our output."""
    arguments, attributes = case.arguments, case.attributes
    n_bytes = scan_bytes(case.sizes, case.zxbcdt[..., 0].numel(), case.zxbcdt.itemsize)
    source = torch.empty(n_bytes // 2, dtype=torch.uint8, device=part.device)
    target = torch.empty_like(source)
    candidates: dict[str, Callable[[], Any]] = {
        "bsm": lambda: library_scan(library, *arguments, **attributes),
        "copy": lambda: target.copy_(source),
        **_mamba_candidates(case),
        "chunked": lambda: bimamba2_scan_chunked(*arguments, **attributes),
    }
    with torch.inference_mode():
        measured, failed = take_turns(part.device, candidates, part.rounds)
        for name, ms in measured.items():
            median = summary(ms)["median"]
            row = {"candidate": name, "ms": summary(ms), "gb_s": n_bytes / median / 1e6}
            row["ours_is_faster_by"] = ratios(measured, "bsm", name)
            if name in ("chunked", "mamba_ssm") and "bsm" in measured:
                row["relative_rms_to_ours"] = relative_rms(candidates[name](), candidates["bsm"]())
            yield row
    yield from ({"candidate": name, "error": why} for name, why in failed.items())
    yield {"candidate": "floor", "ms": n_bytes / part.values["copy_gb_s"] / 1e6}


def _mamba_candidates(case: ScanInputs) -> dict[str, Callable[[], Any]]:
    """Returns mamba_ssm's kernels as the whole operator, both directions, and the scan alone."""
    module, sizes = _mamba_ssm()[0], case.sizes
    if module is None:
        return {}
    directions = [case.direction(number) for number in (0, 1)]
    chunk = mamba_ssm_chunk(case.zxbcdt.shape[1])

    def whole() -> Tensor:
        ys = [
            mamba_ssm_direction(*inputs, d_state=sizes.d_state, eps=case.eps, reverse=reverse)
            for inputs, reverse in zip(directions, (False, True), strict=True)
        ]
        return torch.cat(ys, dim=-1)

    def kernels() -> None:
        for zxbcdt, (_, _, dt_bias, A, D) in directions:
            _, xbc, dt = zxbcdt.split((sizes.d_inner, sizes.d_xbc, sizes.n_heads), dim=-1)
            x, B, C = xbc.split((sizes.d_inner, sizes.d_state, sizes.d_state), dim=-1)
            module.mamba_chunk_scan_combined(
                x.unflatten(-1, (sizes.n_heads, sizes.headdim)),
                dt,
                A,
                B[:, :, None],
                C[:, :, None],
                chunk,
                D=D,
                dt_bias=dt_bias,
                dt_softplus=True,
            )

    return {"mamba_ssm": whole, "mamba_ssm kernels": kernels}


def _all_blocks(rows: list[dict[str, Any]], dtype: torch.dtype) -> dict[str, float]:
    """Returns candidate -> milliseconds of all blocks of the network, half of them on each path."""
    total: dict[str, list[float]] = {}
    for row in rows:
        if row["dtype"] == _name(dtype) and "ms" in row:
            ms = row["ms"]
            total.setdefault(row["candidate"], []).append(
                ms["median"] if isinstance(ms, dict) else ms
            )
    return {name: BLOCKS // 2 * sum(both) for name, both in total.items() if len(both) == 2}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
