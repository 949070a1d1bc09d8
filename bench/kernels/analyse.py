"""Finds, without a GPU, what resources the compiled scan kernels take and what bounds their speed.

    python bench/kernels/analyse.py                   # prints the tables
    python bench/kernels/analyse.py --write-readme    # also into plugins/README.md, the results

Needs nvcc and nvdisasm. Registers, occupancy and instructions are those of the machine code; the
trip count of a loop is derived from its source line, and each time is a lower bound by one
resource, at the rates given with the tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.report import ROOT, replace_block, write_report
from bench.kernels.bounds import RATES, bounds, instruction_mix, stages, waves
from bench.kernels.build import DTYPES, Compiler, find_nvdisasm
from bench.kernels.gpus import GPUS, occupancy
from bench.kernels.ptxas import KernelUsage
from bench.kernels.sass import Kernel
from bench.kernels.tables import BEGIN, END, tables
from bench.kernels.trips import Counts, Source
from bsmamba2.config.file import load_config
from bsmamba2.errors import PluginError
from bsmamba2.plugins.build import source_folder
from bsmamba2.plugins.toolchain import Toolchain, find_toolchain
from bsmamba2.system.atomic import write_atomic

RESULT = ROOT / "bench/results/kernels.json"
README = ROOT / "plugins/README.md"
KERNELS = {"time": "scan_chunks", "bands": "scan_short"}
"""Axis -> the kernel that scans along it."""
_BOUNDS_ON = 90  # the architecture whose rates are known


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="write the tables into plugins/README.md, the figures into bench/results/kernels.json",
    )
    options = parser.parse_args()
    try:
        toolchain = find_toolchain()
        report = analyse(
            toolchain,
            find_nvdisasm(toolchain),
            architectures=(80, 90, 100, 120),
            dtypes=("float32", "float16"),
        )
    except (PluginError, FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    text = tables(report)
    print(text)
    if options.write_readme:
        write_report(RESULT, report)
        write_atomic(README, replace_block(README, BEGIN, END, text))
    return 0


def analyse(
    toolchain: Toolchain,
    nvdisasm: Path,
    *,
    architectures: Sequence[int],
    dtypes: Sequence[str],
) -> dict[str, Any]:
    """Analyses the kernels at the full-size network's sizes; returns the report.

    Args:
        toolchain: The toolchain with nvcc.
        nvdisasm: The program that prints machine code.
        architectures: Compute capabilities, 90 for 9.0.
        dtypes: Entries of DTYPES.

    Raises:
        RuntimeError: A program fails.
    """
    model = load_config("bsmamba2").model
    net, bands, frames = model.network, len(model.network.band_widths), model.audio.chunk_frames
    ways = {"time": {"N": bands, "L": frames}, "bands": {"N": frames, "L": bands}}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for dtype in dtypes:
            compiler = Compiler(
                toolchain=toolchain,
                nvdisasm=nvdisasm,
                work=Path(work),
                size=(DTYPES.index(dtype), net.headdim, net.d_state),
            )
            for architecture in architectures:
                kernels = compiler.compile(architecture)
                for way, shape in ways.items():
                    N, L = shape["N"], shape["L"]
                    launch = compiler.launch(architecture, heads=net.n_heads, sequences=N, steps=L)
                    launch["blocks"] = 2 * N * launch["blocks_per_row"]
                    kernel, usage = kernels[KERNELS[way]]
                    row = _usage(usage, launch, architecture)
                    row |= {"dtype": dtype, "architecture": architecture, "way": way}
                    row["kernel"] = kernel.short_name
                    if architecture == _BOUNDS_ON:
                        tokens = 2 * N * L * (net.d_in_proj + net.d_inner)
                        row |= _work(kernel, launch, L, tokens * launch["item_bytes"])
                        row["waves"] = waves(launch, row["blocks_per_multiprocessor"])
                    rows.append(row)
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "nvcc": toolchain.release,
        "sizes": {"n_heads": net.n_heads, "headdim": net.headdim, "d_state": net.d_state},
        "ways": ways,
        "rates": RATES,
        "scans": 2 * net.layers,
        "kernels": rows,
    }


def _usage(usage: KernelUsage, launch: dict[str, Any], architecture: int) -> dict[str, Any]:
    """Resources of a multiprocessor that a kernel takes."""
    blocks, share, limit = occupancy(
        GPUS[architecture],
        threads=launch["threads"],
        registers=usage.registers,
        shared_bytes=launch["launch_bytes"],
    )
    return {
        "registers": usage.registers,
        "spill_bytes": usage.spill_bytes,
        "launch": launch,
        "blocks_per_multiprocessor": blocks,
        "occupancy": round(share, 4),
        "occupancy_limit": limit,
    }


def _work(kernel: Kernel, launch: dict[str, Any], steps: int, n_bytes: int) -> dict[str, Any]:
    """The work of a kernel, and lower bounds on its time."""
    source = Source(source_folder() / "cuda")
    counts = Counts(kernel, source, launch, steps=steps)
    return {
        "chunks": -(-steps // launch["chunk"]),
        "mix": instruction_mix(kernel, counts),
        "stages": stages(kernel, counts, source),
        "unknown_loops": counts.unknown,
        "bytes": n_bytes,
        "least_ms": bounds(kernel, counts, launch, n_bytes=n_bytes),
    }


if __name__ == "__main__":
    sys.exit(main())
