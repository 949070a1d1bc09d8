"""The report of `gpu.py` for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.common.tables import aligned, median_range

Row = Mapping[str, Any]


def lines(report: Row) -> Iterator[str]:
    """The report's figures, a block a part."""
    if report["rehearsal"]:
        yield "REHEARSAL on a CPU: every figure below is meaningless."
    yield f"{report['command']}, {report['date']}"
    for name, part in report["parts"].items():
        yield ""
        seconds = f", {part['seconds']:.0f} s" if "seconds" in part else ""
        yield f"== {name}: {part['status']}{seconds}"
        if "reason" in part:
            yield f"   {part['reason']}"
        yield from (f"   warning: {line}" for line in part.get("logged", ()))
        if part["status"] == "skipped":
            continue
        try:
            yield from _BLOCKS[name](part)
        except (KeyError, TypeError, ValueError):  # a part that ended before it had all figures
            yield "   its figures are incomplete: see the JSON"


def _gpu(part: Row) -> Iterator[str]:
    smi = part["nvidia_smi"] or {}
    yield (
        f"   {part.get('name', 'no GPU')}, compute capability {part.get('compute_capability')}, "
        f"{part.get('multiprocessors')} multiprocessors, {part.get('memory_gib')} GiB, "
        f"L2 {part.get('l2_mib')} MiB, driver {smi.get('driver_version')}"
    )
    yield "   " + ", ".join(f"{n} {value}" for n, value in part["versions"].items() if value)


def _build(part: Row) -> Iterator[str]:
    if part["built"]:
        yield f"   {', '.join(part['architectures'])}, {part['library_mib']} MiB"


def _parity(part: Row) -> Iterator[str]:
    rows: list[Sequence[str]] = [
        ("N", "L", "heads", "kind", "type", "relative RMS", "worst row", "")
    ]
    for row in part["rows"]:
        verdict = "" if row["ok"] else row.get("error", "WRONG")
        if row.get("repeatable") is False:
            verdict = "NOT REPEATABLE"
        rows.append(
            (
                *(str(row[key]) for key in ("N", "L", "heads", "kind", "dtype")),
                _exponent(row.get("relative_rms")),
                _exponent(row.get("worst_step")),
                verdict,
            )
        )
    yield from _table(rows)


def _sanitizer(part: Row) -> Iterator[str]:
    for row in part["rows"]:
        verdict = "ok" if row["ok"] else "NOT OK: " + row["output"].strip()[-600:]
        yield (
            f"   {row['what']}, {row['tool']}: {row['cases']} cases, {row['errors']} errors, "
            f"{row['seconds']:.0f} s, {verdict}"
        )


def _scan(part: Row) -> Iterator[str]:
    copy = part["copy_gb_s"]
    rate = median_range(copy, ".0f")
    yield f"   copy of {copy['bytes'] >> 20} MiB: {rate} GB/s, read and written"
    yield f"   mamba_ssm: {part['mamba_ssm']}"
    rows: list[Sequence[str]] = [
        ("path", "type", "candidate", "ms", "ours is faster by", "GB/s", "of copy", "differs")
    ]
    for row in part["rows"]:
        for name, ms in row["ms"].items():
            ours = name == "bsm"
            rows.append(
                (
                    row["path"],
                    row["dtype"],
                    name,
                    median_range(ms, ".3f"),
                    median_range(row["speedup"].get(name), ".2f"),
                    f"{row['gb_s']:.0f}" if ours else "",
                    f"{row['share_of_copy']['median']:.0%}"
                    if ours and row["share_of_copy"]
                    else "",
                    _exponent(row["relative_rms_to_bsm"].get(name)),
                )
            )
        for name, why in row["failed"].items():
            rows.append((row["path"], row["dtype"], name, why[:60], "", "", "", ""))
    yield from _table(rows)
    for dtype, total in part["twelve_blocks"].items():
        times = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(total["ms"].items()))
        yield (
            f"   12 blocks in {dtype}, ms: {times}; floor {total['floor_ms']:.2f}, "
            f"target on an H200 {total['target_ms']}"
        )


_METRICS = {  # as ncu names them, and shorter
    "Duration": "takes",
    "DRAM Throughput": "of DRAM",
    "Compute (SM) Throughput": "of SM",
    "Registers Per Thread": "registers",
    "Achieved Occupancy": "occupancy",
}


def _profile(part: Row) -> Iterator[str]:
    rows: list[Sequence[str]] = [("kernel", "grid", "block", *_METRICS.values())]
    for row in part["kernels"]:
        metrics = (row["metrics"].get(name, "") for name in _METRICS)
        rows.append((row["kernel"][:48], row["grid"], row["block"], *metrics))
    yield from _table(rows)


def _mask(part: Row) -> Iterator[str]:
    yield f"   relative RMS to {part['reference']}, {part['weights']} weights"
    rows: list[Sequence[str]] = [("network", "frames", "relative RMS", "largest")]
    rows += [
        (
            row["network"],
            str(row["frames"]),
            row["error"] if "error" in row else _exponent(row["relative_rms"]),
            _exponent(row.get("max")),
        )
        for row in part["rows"]
    ]
    yield from _table(rows)


def _network(part: Row) -> Iterator[str]:
    floor = part["floor"]
    parts = ", ".join(f"{name} {ms:.2f}" for name, ms in floor["parts_ms"].items())
    yield f"   floor {floor['ms']:.2f} ms a chunk of {part['chunk_s']} s ({parts})"
    yield f"   the published network scans by {part['published_scan']}"
    yield from _networks(part["rows"])
    kernels = part["kernels"]
    if isinstance(kernels, str):
        yield f"   no profile: {kernels}"
    else:
        yield "   longest kernels of an eager pass in float16, ms (calls):"
        for row in kernels[:12]:
            yield f"   {row['ms']:9.3f} ({row['calls']})  {row['kernel'][:100]}"


def _networks(measured: Sequence[Row]) -> Iterator[str]:
    rows: list[Sequence[str]] = [
        ("batch", "network", "ms a chunk", "x real time", "speedup", "x floor", "pass MiB")
    ]
    for row in measured:
        for name, figures in row["networks"].items():
            memory = figures["pass_memory_mib"]
            rows.append(
                (
                    str(row["batch"]),
                    name,
                    median_range(figures["ms_per_chunk"], ".2f"),
                    f"{figures['times_real_time']:.0f}",
                    median_range(figures["speedup"], ".2f"),
                    f"{figures['times_floor']:.2f}",
                    "" if memory is None else f"{memory:.0f}",
                )
            )
        for name, why in row["failed"].items():
            rows.append((str(row["batch"]), name, why[:60], "", "", "", ""))
    yield from _table(rows)


def _song(part: Row) -> Iterator[str]:
    share = part["share"]
    shares = f"engine {share['engine']:.0%}, the rest {share['rest']:.0%}; " if share else ""
    yield (
        f"   {part['song_s']} s of audio in {part['wall_s']:.2f} s, "
        f"{part['times_real_time']:.0f} x real time; {shares}STFT by {part['stft']}"
    )


def _plan(part: Row) -> Iterator[str]:
    for row in part["plans"]:
        yield (
            f"   {row['source']}, {row['precision']}: {row['builder']}, built in "
            f"{row['seconds']:.1f} s, {row['mib']:.1f} MiB of {row['onnx_mib']:.1f} MiB ONNX, "
            f"{row['plugin_layers']} plugin layers"
        )
        if "error" in row:
            yield f"   it does not run here: {row['error']}"
    yield f"   floor {part['floor']['ms']:.2f} ms a chunk of {part['chunk_s']} s"
    yield f"   the published network scans by {part['published_scan']}; {part['weights']} weights"
    for name, rms in part.get("relative_rms_to_folded_float32", {}).items():
        value = rms if isinstance(rms, str) else _exponent(rms)
        yield f"   {name}: relative RMS to folded float32 {value}"
    yield from _networks(part["rows"])
    for row in part["songs"]:
        yield from _song(row)


_BLOCKS = {
    "gpu": _gpu,
    "build": _build,
    "parity": _parity,
    "sanitizer": _sanitizer,
    "scan": _scan,
    "profile": _profile,
    "mask": _mask,
    "network": _network,
    "song": _song,
    "plan": _plan,
}


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from (f"   {line}" for line in aligned(rows))


def _exponent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1e}"
