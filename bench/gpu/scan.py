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
from bench.gpu.clock import Work, copy_bandwidth, ratios, reason, take_turns
from bench.gpu.part import Part, relative_rms
from bsmamba2.models.cuda_scan import library_scan
from bsmamba2.models.kernels import mamba_ssm_chunk, mamba_ssm_direction
from bsmamba2.models.scan import Sizes, bimamba2_scan_chunked, bimamba2_scan_reference
from bsmamba2.plugins.library import ScanLibrary

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of the relative RMS, by type."""
KINDS = ("usual", "strong decay", "dt near 0", "no decay", "silence within")
LENGTHS = (1, 2, 63, 64, 65, 129, 1134)
BLOCKS = 12
"""Of the published network, half along time and half along bands."""
TARGET_MS = 2.6
"""Of all blocks on an H200, in float16."""
_LOG_SUM_SLACK = {"strong decay": 5.0}  # outputs that cancel before the norm


def parity(part: Part) -> None:
    """Every type, both paths, odd lengths and extremes, against the float64 reference."""
    library = ScanLibrary(part.job.library)
    rows: list[dict[str, Any]] = []
    part.values |= {"limits": {_name(t): limit for t, limit in LIMITS.items()}, "rows": rows}
    for N, L, sizes, kind in _parity_cases(part):
        for dtype in LIMITS:
            row = {"N": N, "L": L, "heads": sizes.n_heads, "kind": kind, "dtype": _name(dtype)}
            try:
                row |= _compare(part, library, N, L, sizes, dtype, kind)
            except Exception as error:
                row |= {"ok": False, "error": reason(error)}
            rows.append(row)
            if not row["ok"]:
                part.say(f"WRONG {row}")
            part.save()
    for N, L in part.paths.values():
        row = {"N": N, "L": L, "heads": part.sizes.n_heads, "kind": "batch", "dtype": "float16"}
        try:
            row |= _large_batch(part, library, N, L)
        except Exception as error:  # out of memory on a small GPU
            row |= {"ok": False, "error": reason(error)}
        rows.append(row)
    part.save()
    part.values["wrong"] = sum(not row["ok"] for row in rows)
    part.say(f"{len(rows)} cases, {part.values['wrong']} wrong")
    if part.values["wrong"]:
        raise RuntimeError(f"{part.values['wrong']} of {len(rows)} cases are wrong")


def _parity_cases(part: Part) -> Iterator[tuple[int, int, Sizes, str]]:
    for N, L in part.paths.values():
        yield N, L, part.sizes, "usual"
    lengths = (1, 65) if part.job.rehearsal else LENGTHS
    for L in lengths:
        yield 3, L, part.sizes, "usual"
    for kind in KINDS[1:]:
        for L in (62,) if part.job.rehearsal or part.job.quick else (62, 801):
            yield 2, L, part.sizes, kind
    if not part.job.rehearsal:
        yield 5, 129, SMALL, "usual"


def make_case(
    part: Part, N: int, L: int, sizes: Sizes, dtype: torch.dtype, kind: str = "usual"
) -> ScanInputs:
    """The signal and the convolution in `dtype`, the rest in float32.

    Args:
        part: Whose device.
        N: Sequences.
        L: Steps.
        sizes: Of a direction.
        dtype: Of the signal.
        kind: One of KINDS.
    """
    made: dict[str, Any] = {"seed": N + L, "device": part.device, "dtype": torch.float32}
    if kind == "usual":
        inputs = scan_inputs(N, L, sizes, **made)
    else:
        inputs = extreme_inputs(kind, N, L, sizes, **made)
    names = ("zxbcdt", "conv_weight", "conv_bias")
    return replace(inputs, **{name: getattr(inputs, name).to(dtype) for name in names})


def _compare(
    part: Part,
    library: ScanLibrary,
    N: int,
    L: int,
    sizes: Sizes,
    dtype: torch.dtype,
    kind: str,
) -> dict[str, Any]:
    case = make_case(part, N, L, sizes, dtype, kind)
    expected = bimamba2_scan_reference(*case.arguments, **case.attributes)
    poisoned = torch.full(expected.shape, math.nan, dtype=dtype, device=part.device)
    y = library_scan(library, *case.arguments, **case.attributes, out=poisoned)
    again = library_scan(library, *case.arguments, **case.attributes)
    rms = relative_rms(y, expected)
    limit = LIMITS[dtype] * _LOG_SUM_SLACK.get(kind, 1.0)
    repeatable = bool(torch.equal(y, again))
    return {
        "relative_rms": rms if math.isfinite(rms) else None,
        "worst_step": _worst_step(y, expected),
        "repeatable": repeatable,  # else a race
        "ok": rms <= limit and repeatable,
    }


def _large_batch(part: Part, library: ScanLibrary, N: int, L: int) -> dict[str, Any]:
    """More elements than 32 bits count: copies of a batch must give copies of its output."""
    case = make_case(part, N, L, part.sizes, torch.float16)
    expected = library_scan(library, *case.arguments, **case.attributes)
    copies = 3 if part.job.rehearsal else 1 + (1 << 31) // case.zxbcdt.numel()
    zxbcdt = case.zxbcdt.repeat(copies, 1, 1)
    y = library_scan(library, zxbcdt, case.arguments[1], **case.attributes)
    same = all(torch.equal(part_of_y, expected) for part_of_y in y.split(N))
    return {"N": copies * N, "ok": same}


def _worst_step(y: Tensor, expected: Tensor) -> float | None:
    """Largest RMS of a row's difference; a row of the reference has RMS 1 or less."""
    worst = float((y.double() - expected).square().mean(-1).sqrt().max())
    return worst if math.isfinite(worst) else None


def times(part: Part) -> None:
    """Our scan against mamba_ssm's kernels, the chunked form and a copy of as many bytes."""
    library = ScanLibrary(part.job.library)
    part.values["mamba_ssm"] = mamba_ssm()[1]
    large = 1 << 20 if part.job.rehearsal else 4 << 30
    part.values["copy_gb_s"] = copy_bandwidth(part.clock, large)
    rows: list[dict[str, Any]] = []
    part.values["rows"] = rows
    for dtype in (
        (torch.float16,) if part.job.quick else (torch.float16, torch.bfloat16, torch.float32)
    ):
        for path, (N, L) in part.paths.items():
            row = {"path": path, "N": N, "L": L, "dtype": _name(dtype)}
            rows.append(row | _time(part, library, N, L, dtype))
            part.say(f"{path} {_name(dtype)}: " + _medians(rows[-1]))
            part.save()
    part.values["twelve_blocks"] = {
        _name(dtype): _twelve_blocks([r for r in rows if r["dtype"] == _name(dtype)])
        for dtype in LIMITS
        if any(r["dtype"] == _name(dtype) for r in rows)
    }


def mamba_ssm() -> tuple[Any, str]:
    """mamba_ssm's module of scan kernels or None; and what it is, or why it is not there."""
    try:
        module = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    except Exception as error:  # whatever a package, Triton or a driver may raise
        return None, f"not importable: {reason(error)}"
    has_conv = getattr(module, "causal_conv1d_fwd_function", None) is not None
    return module, f"with{'' if has_conv else 'out'} causal_conv1d"


def _time(part: Part, library: ScanLibrary, N: int, L: int, dtype: torch.dtype) -> dict[str, Any]:
    sizes = part.sizes
    case = make_case(part, N, L, sizes, dtype)
    arguments, attributes = case.arguments, case.attributes
    n_bytes = scan_bytes(sizes, N * L, dtype.itemsize)
    source = torch.empty(n_bytes // 2, dtype=torch.uint8, device=part.device)
    target = torch.empty_like(source)
    candidates: dict[str, Callable[[], Any]] = {
        "bsm": lambda: library_scan(library, *arguments, **attributes),
        "copy": lambda: target.copy_(source),
        **_mamba_candidates(case, sizes),
        "chunked": lambda: bimamba2_scan_chunked(*arguments, **attributes),
    }
    with torch.inference_mode():
        measured, failed = take_turns(part.clock, candidates, part.rounds)
        agreement = _agreement(candidates, [n for n in measured if n not in ("bsm", "copy")])
    copy_gb_s = part.values["copy_gb_s"]["median"]
    floor_ms = n_bytes / copy_gb_s / 1e6
    return {
        "bytes": n_bytes,
        "floor_ms": floor_ms,
        "ms": {name: summary(values) for name, values in measured.items()},
        "gb_s": n_bytes / summary(measured["bsm"])["median"] / 1e6 if "bsm" in measured else None,
        "share_of_copy": ratios(measured, "bsm", "copy"),
        "speedup": {
            name: ratios(measured, "bsm", name) for name in measured if name not in ("bsm", "copy")
        },
        "relative_rms_to_bsm": agreement,
        "failed": failed,
    }


def _mamba_candidates(case: ScanInputs, sizes: Sizes) -> dict[str, Work]:
    """mamba_ssm as a whole operator, both directions; and its scan alone, without the rest."""
    module, _ = mamba_ssm()
    if module is None:
        return {}
    forward, backward = (case.direction(number) for number in (0, 1))

    def whole() -> Tensor:
        directions = [
            mamba_ssm_direction(*inputs, d_state=sizes.d_state, eps=case.eps, reverse=reverse)
            for inputs, reverse in ((forward, False), (backward, True))
        ]
        return torch.cat(directions, dim=-1)

    chunk = mamba_ssm_chunk(case.zxbcdt.shape[1])

    def kernels() -> None:
        for zxbcdt, (_, _, dt_bias, A, D) in (forward, backward):
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


def _agreement(candidates: dict[str, Callable[[], Any]], names: list[str]) -> dict[str, Any]:
    """Distances of what the others compute from ours, where they return it."""
    if "bsm" not in candidates:
        return {}
    ours, distances = candidates["bsm"](), {}
    for name in names:
        theirs = candidates[name]()
        if isinstance(theirs, Tensor):
            distances[name] = relative_rms(theirs, ours)
    return distances


def _twelve_blocks(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All blocks of the network: half of them on either path."""
    half = BLOCKS // 2
    names = set.intersection(*(set(row["ms"]) for row in rows))
    total = {name: half * sum(row["ms"][name]["median"] for row in rows) for name in names}
    ours = total.get("bsm")
    return {
        "ms": total,
        "floor_ms": half * sum(row["floor_ms"] for row in rows),
        "target_ms": TARGET_MS,
        "speedup": {name: ms / ours for name, ms in total.items() if name != "bsm"} if ours else {},
    }


def _medians(row: dict[str, Any]) -> str:
    found = ", ".join(f"{name} {ms['median']:.3f} ms" for name, ms in row["ms"].items())
    lost = "".join(f"; {name} failed: {why}" for name, why in row["failed"].items())
    return found + lost


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
