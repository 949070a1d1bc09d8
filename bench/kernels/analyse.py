"""What the compiled scan kernels take and what bounds them, without a GPU.

    python bench/kernels/analyse.py                   # tables
    python bench/kernels/analyse.py --write-readme    # into plugins/README.md, results/kernels.json

Needs nvcc and nvdisasm. Registers, occupancy and instructions are those of the machine code; how
often a loop runs is worked out from its source line, and times are lower bounds by one resource
each, of rates that are given with the tables.
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

from bench.common.machine import describe_versions
from bench.common.report import ROOT, replace_block, write_report
from bench.kernels.bounds import Way, bounds, instruction_mix, stages
from bench.kernels.build import DTYPES, Compiled, Compiler, find_nvdisasm
from bench.kernels.gpus import GPUS, H200, occupancy
from bench.kernels.sass import Kernel
from bench.kernels.tables import BEGIN, END, tables
from bench.kernels.trips import Counts, Source
from bsmamba2.config.file import load_config
from bsmamba2.config.model import NetworkConfig
from bsmamba2.errors import PluginError
from bsmamba2.plugins.build import source_folder
from bsmamba2.plugins.toolchain import Toolchain, find_toolchain
from bsmamba2.system.atomic import write_atomic

RESULT = ROOT / "bench/results/kernels.json"
README = ROOT / "plugins/README.md"
TARGET_MS = 2.6
"""Of the scans of all blocks on an H200 in float16."""
_BOUNDS_ON = 90  # whose rates are known
_KERNELS = {"scan_short": "bands", "scan_chunks": "time"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    options = _parser().parse_args(arguments)
    try:
        toolchain = find_toolchain()
        report = analyse(
            toolchain,
            find_nvdisasm(toolchain),
            architectures=options.arch,
            dtypes=options.dtype,
        )
    except (PluginError, FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    result: Path | None = options.json or (RESULT if options.write_readme else None)
    if result:
        write_report(result, report)
    text = tables(report)
    print(text)
    if options.write_readme:
        write_atomic(README, replace_block(README, BEGIN, END, text))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--arch", type=int, nargs="+", choices=sorted(GPUS), default=[80, 90, 100, 120]
    )
    parser.add_argument("--dtype", type=int, nargs="+", choices=range(3), default=[0, 1])
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="tables into plugins/README.md, figures into bench/results/kernels.json",
    )
    return parser


def analyse(
    toolchain: Toolchain,
    nvdisasm: Path,
    *,
    architectures: Sequence[int],
    dtypes: Sequence[int],
) -> dict[str, Any]:
    """The report on the published network's sizes.

    Args:
        toolchain: Whose nvcc.
        nvdisasm: Program that prints machine code.
        architectures: 90 for 9.0.
        dtypes: BsmDtype's numbers.

    Raises:
        RuntimeError: A program fails.
    """
    model = load_config("bsmamba2").model
    net, bands, frames = model.network, len(model.network.band_widths), model.audio.chunk_frames
    ways = (
        Way(name="time", sequences=bands, steps=frames),
        Way(name="bands", sequences=frames, steps=bands),
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for dtype in dtypes:
            size = (dtype, net.headdim, net.d_state)
            compiler = Compiler(toolchain, nvdisasm, Path(work), size)
            for architecture in architectures:
                compiled = compiler.compile(architecture)
                rows += [_row(compiler, compiled, net, dtype, architecture, way) for way in ways]
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "nvcc": toolchain.release,
        "versions": describe_versions(),
        "sizes": {"n_heads": net.n_heads, "headdim": net.headdim, "d_state": net.d_state},
        "ways": {way.name: {"N": way.sequences, "L": way.steps} for way in ways},
        "rates": {"gpu": H200.name, "clocks_ghz": H200.clocks_ghz, "sources": H200.sources},
        "target_ms": TARGET_MS,
        "blocks": 2 * net.layers,
        "kernels": rows,
    }


def _row(
    compiler: Compiler,
    compiled: Compiled,
    net: NetworkConfig,
    dtype: int,
    architecture: int,
    way: Way,
) -> dict[str, Any]:
    """A kernel of one type on one architecture, as one of the ways launches it."""
    plan = compiler.plan(architecture, heads=net.n_heads, sequences=way.sequences, steps=way.steps)
    kernel = _kernel_of(compiled.kernels, way)
    usage = compiled.usages[kernel.name]
    occupied = occupancy(
        GPUS[architecture],
        threads=plan["threads"],
        registers=usage.registers,
        shared_bytes=plan["launch_bytes"],
    )
    source = Source(source_folder() / "cuda")
    counts = Counts(kernel, source, plan, steps=way.steps)
    row: dict[str, Any] = {
        "dtype": DTYPES[dtype],
        "architecture": architecture,
        "way": way.name,
        "kernel": kernel.short_name,
        "registers": usage.registers,
        "spill_bytes": usage.spill_bytes,
        "plan": plan,
        "blocks_per_multiprocessor": occupied.blocks,
        "occupancy": round(occupied.share, 4),
        "occupancy_limit": occupied.limit,
        "chunks": -(-way.steps // plan["chunk"]),
        "mix": instruction_mix(kernel, counts),
        "stages": stages(kernel, counts, source),
        "unknown_loops": counts.unknown,
    }
    if architecture == _BOUNDS_ON:
        n_bytes = _bytes(net, way, plan["item_bytes"])
        row["bounds"] = bounds(
            kernel, counts, plan, way=way, n_bytes=n_bytes, rates=H200, resident=occupied.blocks
        )
    return row


def _kernel_of(kernels: Sequence[Kernel], way: Way) -> Kernel:
    return next(each for each in kernels if _KERNELS.get(each.short_name) == way.name)


def _bytes(net: NetworkConfig, way: Way, item_bytes: int) -> int:
    """What a block's scan reads and writes, each once."""
    per_token = 2 * (net.d_in_proj + net.d_inner)
    return way.sequences * way.steps * per_token * item_bytes


if __name__ == "__main__":
    sys.exit(main())
