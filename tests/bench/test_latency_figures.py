"""Laws of what `bench/latency.py` computes from its times: floor, line, profile, table, page."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import latency
from bench.common.flops import network_flops
from bench.timing.figures import row_figures
from bench.timing.floor import INT8_STAGES, floors, network_work
from bench.timing.growth import fit
from bench.timing.operators import by_operator, by_part, own_times
from bench.timing.plot import plots
from bench.timing.tables import BEGIN, END, lines, readme_table
from bsmamba2.config.file import load_config

ROOT = Path(latency.__file__).parents[1]
COMMITTED = ROOT / "bench" / "results" / "latency-cpu.json"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The committed report, with known figures of growth."""
    report = latency.read_report(COMMITTED)
    points = [
        {"chunks": n, "audio_s": 4 * n, "seconds": 0.1 + 0.5 * n, "min": 0.5 * n, "max": 0.7 * n}
        | {"peak_memory_mib": 200.0}
        for n in (2, 4, 8)
    ]
    line = fit([2, 4, 8], [point["seconds"] for point in points])
    engine = {"file": "the embedded engine", "chunk_s": 4}
    return report | {"growth": {"length": {"engine": engine, "points": points, "fit": line}}}


def test_published_table_is_that_of_the_committed_results() -> None:
    text = (ROOT / "docs/speed.md").read_text("utf-8")
    inside = text.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert inside == readme_table(latency.read_report(COMMITTED))


def test_table_does_not_depend_on_the_page_that_it_was_written_to(report: dict[str, Any]) -> None:
    command = "python bench/latency.py --peers"
    plain = readme_table(report | {"command": f"{command} --json"})
    assert f"`{command} --json`" in plain
    for option in ("--readme README.md", "--readme=docs/speed.md", "--readme 'a page.md'"):
        assert readme_table(report | {"command": f"{command} {option} --json"}) == plain


def test_readme_option_replaces_the_table_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    assert latency.main(["--from", str(COMMITTED), "--readme", str(path)]) == 0
    table = readme_table(latency.read_report(COMMITTED))
    assert path.read_text("utf-8") == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("--readme", "no place", "has no place for the table"),
        ("--from", '{"benchmark": "gpu"}', "is not a report of this benchmark"),
        ("--from", '{"benchmark": "latency", "format": 1}', "measure again"),
        ("--from", "{", "is not JSON"),
    ],
)
def test_unusable_files_are_one_sentence(
    name: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text(text)
    assert latency.main(["--from", str(COMMITTED), name, str(tmp_path / "file")]) == 1
    assert words in capsys.readouterr().err


def test_ratios_are_made_within_a_round_and_per_second_of_audio() -> None:
    # The machine is twice as slow in the second round; the row takes 4 s of audio, the base 8 s.
    rounds = [{"whole_s": each, "peak_memory_mib": 1.0} for each in (9.0, 2.0, 4.0)]
    base = [{"whole_s": each} for each in (9.0, 1.0, 2.0)]
    figures = row_figures(rounds, per_chunk=2, seconds=8, base=base, floors_s=[])
    assert figures["ratio_to_base"] == {"median": 4, "min": 4, "max": 4}
    assert figures["ms_per_chunk"] == {"median": 6000, "min": 4000, "max": 8000}
    assert figures["real_time_factor"] == 6 / 8


def test_floor_is_arithmetic_or_memory_whichever_takes_longer() -> None:
    model = load_config("bsmamba2").model
    work = network_work(model, 801)
    flops, moved = sum(network_flops(model, 801).values()), sum(count for _, count in work.values())
    fast = {"gflops": 1e9, "gb_s": 1e9}
    assert floors(work, fast | {"gflops": 200})["float32"]["floor_s"] == pytest.approx(flops / 2e11)
    assert floors(work, fast | {"gb_s": 40})["float32"]["floor_s"] == pytest.approx(moved / 4e10)
    mixed = floors(work, {"gflops": 200, "gb_s": 1})["float32"]["stages"]
    assert all(s["floor_s"] == max(s["compute_s"], s["memory_s"]) for s in mixed.values())
    tokens = 801 * 62  # of 256 in, 4640 out, and the matrix, in each of 12 blocks
    assert work["in_proj"][1] == 4 * 12 * (tokens * (256 + 4640) + 256 * 4640)


def test_int8_floor_has_faster_products_only() -> None:
    work = network_work(load_config("tiny").model, 101)
    found = floors(work, {"gflops": 100, "gb_s": 1e9, "gops": 400})
    for name, stage in found["int8"]["stages"].items():
        faster = 4 if name in INT8_STAGES else 1
        slow = found["float32"]["stages"][name]
        assert slow["floor_s"] == pytest.approx(faster * stage["floor_s"])


def test_line_is_found_and_a_parabola_is_none() -> None:
    counts = [2, 4, 8, 16, 32]
    line = fit(counts, [0.25 + 0.5 * n for n in counts])
    assert line
    assert (line["start_s"], line["chunk_s"]) == pytest.approx((0.25, 0.5))
    assert line["worst_residual"] < 1e-9
    assert line["r2"] == pytest.approx(1)
    square = fit(counts, [0.1 * n**2 for n in counts])
    assert square
    assert square["exponent"] == pytest.approx(2)
    assert square["worst_residual"] > 0.3
    assert fit(counts[:2], [1, 2]) is None


def event(name: str, operator: str, ts: int, dur: int) -> dict[str, Any]:
    return {"name": f"{name}_kernel_time", "args": {"op_name": operator}, "ts": ts} | {
        "dur": dur,
        "tid": 1,
    }


def test_an_operator_has_its_own_time_only() -> None:
    events = [
        event("in_proj", "MatMul", 0, 1000),
        event("If_7", "If", 1000, 5000),
        event("Mul_1", "Mul", 1500, 2000),
        event("MatMul_2", "MatMul", 3500, 1500),
        event("norm", "Mul", 6000, 500),
    ]
    nodes = own_times(events)
    assert sum(ms for *_, ms in nodes) == pytest.approx(6.5)
    rows = {row["operator"]: row["ms"] for row in by_operator(nodes)}
    assert rows == pytest.approx({"MatMul": 2.5, "Mul": 2.5, "If": 1.5})
    parts = by_part(nodes, frozenset({"in_proj", "norm"}))
    assert {name: part["ms"] for name, part in parts.items()} == pytest.approx(
        {"scan": 5.0, "products": 1.0, "rest": 0.5}
    )


def test_native_scan_is_one_operator() -> None:
    nodes = [("a", "MatMul", 3.0), ("b", "BiMamba2Scan", 1.0)]
    parts = by_part(nodes, frozenset())
    assert parts["scan"]["share"] == 0.25


def test_page_has_every_plot_and_all_figures(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    page = tmp_path / "plot.html"
    arguments = ["--from", str(tmp_path / "report.json"), "--plot", str(page)]
    assert latency.main(arguments) == int(bool(report["failed"]))
    text = page.read_text("utf-8")
    found = plots(report)
    assert len(found) == 1 + len(report["growth"])
    dots = []
    for title, note, svg in found:
        assert html.escape(title) in text
        assert html.escape(note) in text
        assert svg in text
        dots.append(sum(element.tag == "circle" for element in ElementTree.fromstring(svg)))
    assert dots == [len(report["engines"] | report["peers"]), 3]
    assert html.escape("\n".join(lines(report))) in text


def test_a_plot_is_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        latency.main(["--from", str(COMMITTED), "--plot", "plot.png"])
    assert "plot.png must end in .html" in capsys.readouterr().err


def test_help_is_for_people(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, latency.__file__, "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0
    assert all(option in run.stdout for option in ("--peers", "--profile", "--readme", "--from"))
