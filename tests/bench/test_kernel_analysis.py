"""Laws of the analysis of compiled kernels: its counts are those counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.common.report import replace_block
from bench.kernels import analyse as kernels
from bench.kernels.build import DTYPES, find_nvdisasm
from bench.kernels.gpus import GPUS, occupancy
from bench.kernels.ptxas import KernelUsage, read_ptxas_log
from bench.kernels.sass import read_sass
from bench.kernels.tables import BEGIN, END, tables
from bench.kernels.trips import Source, conditions
from bsmamba2.errors import BsmError
from bsmamba2.plugins.build import source_folder
from bsmamba2.plugins.toolchain import Toolchain

# ---- Occupancy: cases by hand ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared_kib", "blocks", "limit"),
    [
        (90, 128, 168, 16, 3, "registers"),  # 168 * 32 = 5376: three warps a quarter
        (90, 128, 169, 16, 2, "registers"),  # a register more takes 256 more of a warp
        (90, 256, 64, 113, 2, "shared memory"),
        (90, 256, 64, 114, 1, "shared memory"),  # the system's KiB is one too many
        (90, 32, 16, 0, 32, "blocks"),
        (86, 1024, 32, 0, 1, "warps"),
    ],
)
def test_blocks_that_fit(
    gpu: int, threads: int, registers: int, shared_kib: int, blocks: int, limit: str
):
    found = occupancy(
        GPUS[gpu], threads=threads, registers=registers, shared_bytes=shared_kib * 1024
    )
    assert found == (blocks, blocks * threads / 32 / GPUS[gpu].warps, limit)


def test_a_block_may_have_all_shared_memory_but_the_systems():
    # cudaDevAttrMaxSharedMemoryPerBlockOptin, in KiB
    known = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
    assert {gpu: each.block_shared_bytes / 1024 for gpu, each in GPUS.items()} == known


# ---- Source and machine code, small ----------------------------------------------------------

SOURCE = """\
if (params.aligned) {
    fast();
} else {
    slow();
}
for (int j = 0; j < n; ++j) {
    if (j > tile) continue;  // above
    product();
}
behind();
if (start)
    add(first,
        second);
"""


def test_lines_under_a_condition_run_as_often_as_it_is_true(tmp_path: Path):
    (tmp_path / "a.cuh").write_text(SOURCE)
    shares = Source(tmp_path).shares({"params.aligned": 1.0, "j > tile": 0.25, "start": 0.5})
    assert shares == {
        ("a.cuh", 2): 1.0,
        ("a.cuh", 4): 0.0,
        ("a.cuh", 8): 0.75,
        ("a.cuh", 12): 0.5,
        ("a.cuh", 13): 0.5,
    }


SASS = """\
.text._ZN3bsm10scan_shortE:
\t//## File "/somewhere/a.cuh", line 7 inlined at "/somewhere/b.cuh", line 3
\t//## File "/somewhere/b.cuh", line 3
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/              @!P0 LDSM.16.M88.4 R4, [R2] ;
\t//## File "/somewhere/b.cuh", line 4
        /*0020*/                   HMMA.16816.F32 R4, R4, R8, R4 ;
        /*0030*/                   LDS.64 R4, [R2] ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
.L_x_2:
        /*0060*/                   BRA `(.L_x_2);
"""


def test_machine_code_is_read():
    (kernel,) = read_sass(SASS)
    assert kernel.short_name == "scan_short"
    assert [each.kind for each in kernel.code] == [
        *("integer", "shared load", "tensor", "shared load", "control", "control", "control")
    ]
    assert [each.l1_passes for each in kernel.code] == [0, 4, 0, 2, 0, 0, 0]
    assert kernel.code[0].places == (("a.cuh", 7), ("b.cuh", 3))
    assert kernel.code[1].places == kernel.code[0].places  # until the listing names another
    assert kernel.code[2].places == (("b.cuh", 4),)
    assert [(loop.first, loop.last) for loop in kernel.loops()] == [(1, 4)]
    assert kernel.end == 6


# ---- What ptxas says --------------------------------------------------------------------------

PTXAS_LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4kindv' for 'sm_90'
ptxas info    : Function properties for _Z4kindv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 39 registers, used 0 barriers
ptxas info    : Compiling entry function '_Z6greedyv' for 'sm_120a'
ptxas info    : Function properties for _Z6greedyv
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size
"""


def test_a_log_of_ptxas_is_read():
    kind, greedy = read_ptxas_log(PTXAS_LOG)
    assert kind == KernelUsage(
        kernel="_Z4kindv", architecture="90", registers=39, stack_bytes=0, spill_bytes=0
    )
    assert greedy == KernelUsage(
        kernel="_Z6greedyv", architecture="120a", registers=255, stack_bytes=32, spill_bytes=44
    )


def test_a_log_of_ptxas_that_breaks_off_is_no_proof():
    with pytest.raises(ValueError, match="_Z6greedyv"):
        read_ptxas_log(PTXAS_LOG[: PTXAS_LOG.index("    24 bytes")])


# ---- The real kernels ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float32", "float16"])
def report(request: pytest.FixtureRequest, toolchain: Toolchain) -> dict[str, Any]:
    try:
        nvdisasm = find_nvdisasm(toolchain)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return kernels.analyse(toolchain, nvdisasm, architectures=[90], dtypes=[request.param])


def products(launch: dict[str, Any], steps: int) -> float:
    """Tensor-core instructions that a warp runs, counted by hand."""
    tiles, columns = launch["row_tiles"], launch["slab"] // 8
    deep = launch["d_state"] // launch["depth"]
    chunks = -(-steps // launch["chunk"])
    half = (tiles + 1) / 2  # of the tiles in a row, those up to the diagonal
    scores = launch["own_tiles"] * deep * half * 2
    in_chunk = (launch["chunk"] // launch["depth"]) * half * columns
    if launch["groups_per_block"] > 1 or chunks == 1:
        return launch["products"] * (scores + launch["groups_per_block"] * in_chunk)
    read = deep * tiles * columns
    written = launch["chunk"] // launch["depth"] * launch["slab"] // 16 * launch["d_state"] // 8
    return launch["products"] * (chunks * (scores + in_chunk + written) + (chunks - 1) * read)


def special_functions(launch: dict[str, Any], steps: int) -> float:
    """MUFU of a warp, counted by hand: SiLU of convolution and gate, and the masks' decays."""
    chunks = -(-steps // launch["chunk"])
    groups = launch["groups_per_block"] if chunks == 1 else chunks
    shared = 1 if chunks == 1 else chunks / launch["cluster"]  # times that B and C are convolved
    channels = 2 * groups * launch["channels"] + 2 * shared * launch["d_state"]
    of_silu = 1 if launch["item_bytes"] == 2 else 2  # tanh, or exp and reciprocal
    half = (launch["row_tiles"] + 1) / 2
    masks = groups * launch["heads"] / launch["sharing"] * launch["own_tiles"] * half * 16 * 16 / 32
    return of_silu * channels * launch["chunk"] / launch["threads"] + masks


@pytest.mark.slow
def test_counts_are_those_by_hand(report: dict[str, Any]):
    json.dumps(report)
    for row in report["kernels"]:
        launch, steps, mix = row["launch"], report["ways"][row["way"]]["L"], row["mix"]
        assert mix["tensor"]["run"] == pytest.approx(products(launch, steps), abs=0.1)
        least = special_functions(launch, steps)
        assert least <= mix["mufu"]["run"] < 1.1 * least
        run = sum(kind["run"] for kind in mix.values())
        assert sum(stage["run"] for stage in row["stages"]) == pytest.approx(run, rel=0.1)
        assert row["unknown_loops"] == []
        assert row["least_ms"]["memory"][0] == pytest.approx(
            {"float16": 0.1545, "float32": 0.309}[row["dtype"]], abs=1e-3
        )
        assert all(slow >= fast > 0 for slow, fast in row["least_ms"].values())
    text = tables(report)
    assert all(line.count("|") > 3 for line in text.splitlines() if line.startswith("|"))


def test_every_condition_is_in_the_source():
    shape = {"row_tiles": 4, "two_steps": 0, "cluster": 8, "sharing": 1, "heads": 2, "warps": 4}
    shape |= {"d_state": 128, "channels": 128}
    source = Source(source_folder() / "cuda")
    for condition in conditions(shape, 13):
        assert source.shares({condition: 0.5}), condition


def test_types_are_in_the_order_of_the_header():
    text = (source_folder() / "include/bsm_scan.h").read_text()
    names = [f"BSM_{name.upper()} = {number}" for number, name in enumerate(DTYPES)]
    assert ", ".join(names) in text


# ---- The README ------------------------------------------------------------------------------


def test_a_marked_block_is_replaced_and_nothing_else(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("before\n<a>\nold\n<b>\nafter\n")
    assert replace_block(path, "<a>", "<b>", "\nnew\n\n") == "before\n<a>\nnew\n<b>\nafter\n"
    with pytest.raises(BsmError, match="has no place for the table: put '<c>' and '<b>' into it"):
        replace_block(path, "<c>", "<b>", "new")


def test_the_readme_has_the_tables_of_todays_shape():
    report = json.loads(kernels.RESULT.read_text())
    text = kernels.README.read_text()
    assert replace_block(kernels.README, BEGIN, END, tables(report)) == text
    assert {row["kernel"] for row in report["kernels"]} == set(kernels.KERNELS.values())
    assert all((source_folder() / f"cuda/{name}.cuh").exists() for name in kernels.KERNELS.values())
