"""Laws of `bsm export --trt` with the real TensorRT-RTX, which builds without a GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from plan_building import EMBED_PLUGIN, bsm, build, built, keep_in_cache, refusal, scans
from processes import python

from bsmamba2.export import to_plan
from bsmamba2.export.plan.options import PlanOptions
from bsmamba2.export.to_plan import export_plan
from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.trt_plan import carries_library, read_plan, read_sidecar
from bsmamba2.plugins import architectures
from bsmamba2.plugins import build as plugin_build
from bsmamba2.plugins.build import sources_sha256

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx"
)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def assert_sidecar_is_complete(plan: Path, source: Path, plugin: Path) -> None:
    """Everything that the runtime checks, against the files themselves."""
    record, metadata = read_sidecar(plan)
    read_plan(plan, record)
    assert metadata == parse_metadata(read_onnx_file(source).metadata, source)
    assert (record.onnx, record.onnx_sha256) == (source.name, digest(source))
    assert record.builder == "tensorrt-rtx"
    assert record.builder_version == importlib.metadata.version("tensorrt_rtx")
    assert record.architectures == ()  # TensorRT-RTX binds a plan to no GPU
    assert record.plugin_layers == 2 * metadata.model.network.layers
    assert record.plugin.version == "1"
    assert record.plugin.library_sha256 == digest(plugin)
    # Serialised attributes: a plan holds as many plugins as there are scan nodes, or more.
    assert plan.read_bytes().count(b"d_state") >= record.plugin_layers


# --- what is built ---


def test_every_block_becomes_a_plugin_layer_and_the_sidecar_is_complete(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    done = build(tmp_path, tiny_onnx, plugin_library, "-o", "model.plan")
    assert done.stdout == "model.plan\n", done.stderr
    parsed, building, *_, end = done.stderr.splitlines()  # between them, progress if it takes long
    assert (parsed.split()[0], building.split()[0], end.split()[0]) == (
        "Parsed",
        "Building",
        "Built",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.plan", "model.plan.json"]
    plan = tmp_path / "model.plan"
    assert_sidecar_is_complete(plan, tiny_onnx, plugin_library)
    record, _ = read_sidecar(plan)
    assert (record.batch, record.frames) == ((1, 4, 4), (801, 801, 801))
    assert record.plugin_layers == len(scans(onnx.load(tiny_onnx))) == 4


def test_recorded_command_builds_the_same_plan(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    source = tmp_path / "my model.onnx"
    source.symlink_to(tiny_onnx)
    options = ("--frames", "1:201:401", "--batch", "2")
    plan = built(tmp_path, source, plugin_library, *options)
    record, _ = read_sidecar(plan)
    assert (record.batch, record.frames) == ((1, 2, 2), (1, 201, 401))
    size = plan.stat().st_size
    program, *arguments = shlex.split(record.command)
    assert (program, arguments[1]) == ("bsm", source.name)
    done = bsm(tmp_path, *arguments, "--plugin", plugin_library)
    assert done.returncode == 0, done.stderr
    again, _ = read_sidecar(plan)
    assert read_plan(plan, again)
    # TensorRT-RTX numbers tensors as its threads come to them: the bytes may differ, nothing else.
    assert replace(again, plan_sha256=record.plan_sha256) == record
    assert plan.stat().st_size == pytest.approx(size, rel=1e-3)


def test_float16_file_gives_a_float16_plan(
    tiny_half: Path, tiny_plan: Path, plugin_library: Path, tmp_path: Path
):
    plan = built(tmp_path, tiny_half, plugin_library, "-o", "half.plan")
    assert_sidecar_is_complete(plan, tiny_half, plugin_library)
    assert read_sidecar(plan)[1].precision == "float16"
    assert plan.stat().st_size < tiny_plan.stat().st_size


def test_embedded_engine_is_built_without_naming_a_file(plugin_library: Path, tmp_path: Path):
    done = build(tmp_path, "default", plugin_library, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    plan, source = tmp_path / report["plan"]["output"], Path(report["output"])
    assert plan.name == "default.plan"
    assert_sidecar_is_complete(plan, source, plugin_library)
    record, metadata = read_sidecar(plan)
    assert record.frames == (metadata.model.audio.chunk_frames,) * 3 == (201, 201, 201)
    assert record.command.startswith("bsm export default --trt ")
    assert report["sha256"] == record.onnx_sha256
    assert report["plan"]["plan_sha256"] == digest(plan)
    assert report["plan"]["plugin_layers"] == 6


def test_plugin_does_not_travel_in_the_plan(
    tiny_onnx: Path, tiny_plan: Path, plugin_library: Path, tmp_path: Path
):
    others = build(tmp_path, tiny_onnx, plugin_library, "-o", "with.plan", before=EMBED_PLUGIN)
    assert others.returncode == 0, others.stderr
    library = plugin_library.read_bytes()
    for plan, carries in ((tiny_plan, False), (tmp_path / "with.plan", True)):
        assert (library in plan.read_bytes()) == carries_library(plan.read_bytes()) == carries


def test_built_plugin_is_found_and_its_sources_recorded(
    tiny_onnx: Path,
    tiny_plan: Path,
    plugin_library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_in_cache(plugin_library)
    done = bsm(tmp_path, "export", tiny_onnx, "--trt", "-o", "a.plan")
    assert done.returncode == 0, done.stderr
    assert "Building the scan" not in done.stderr
    record, _ = read_sidecar(tmp_path / "a.plan")
    assert record.plugin.library_sha256 == digest(plugin_library)
    assert record.plugin.sources_sha256 == sources_sha256()
    assert read_sidecar(tiny_plan)[0].plugin.sources_sha256 == ""  # of a plugin that was named


@pytest.mark.parametrize(
    ("asked", "gpus", "built_for"),
    [(None, (), "all"), (None, (90,), "native"), ("80,90", (90,), "80,90")],
)
def test_plugin_is_built_for_what_is_asked_or_here_or_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    gpus: tuple[int, ...],
    built_for: str,
):
    class AskedError(Exception):
        pass

    def build_libraries(*, architectures: str, report: object) -> None:
        raise AskedError(architectures)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(architectures, "gpus", lambda: gpus)
    for module in (to_plan, plugin_build):
        monkeypatch.setattr(module, "build_libraries", build_libraries)
    options = PlanOptions(builder="tensorrt-rtx", arch=asked)
    with pytest.raises(AskedError, match=f"^{built_for}$"):
        export_plan("default", tmp_path / "a.plan", options)
    assert not (tmp_path / "a.plan").exists()


def test_tensorrt_rtx_runs_code_in_a_plan_unasked_and_we_refuse_it(
    tiny_onnx: Path, emulated_scan: Path, tmp_path: Path
):
    """Why `read_plan` looks for code; if the last line fails, TensorRT-RTX itself refuses it."""

    from native import compile_plugin

    speaking = tmp_path / "speaking.cpp"
    speaking.write_text(
        "#include <cstdio>\n"
        '[[gnu::constructor]] static void speak() { std::puts("code runs"); std::fflush(stdout); }'
    )
    plugin = compile_plugin(tmp_path / "libbsm_trt_plugin.so", emulated_scan, speaking)
    done = build(tmp_path, tiny_onnx, plugin, "-o", "a.plan", before=EMBED_PLUGIN)
    assert done.returncode == 0, done.stderr
    soundfile.write(tmp_path / "song.wav", np.zeros((1000, 2)), 44100)
    for command in (("info", "a.plan"), ("infer", "song.wav", "--engine", "a.plan")):
        refused = bsm(tmp_path, *command)
        assert refused.stdout == ""
        assert "a.plan contains a library, whose code would run" in refusal(refused)
    read = """
import sys, tensorrt_rtx as trt
runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
assert not runtime.engine_host_code_allowed
runtime.deserialize_cuda_engine(open(sys.argv[1], "rb").read())
"""
    assert "code runs" in python(read, tmp_path / "a.plan").stdout


SPY = """
import tensorrt_rtx as trt
profiles = []
def create(self, real=trt.Builder.create_optimization_profile):
    profiles.append(real(self))
    return profiles[-1]
def build(self, network, config, real=trt.Builder.build_serialized_network):
    shapes = [list(shape) for shape in profiles[0].get_shape("spectrum")]
    print(shapes, config.get_flag(trt.BuilderFlag.TF32), config.num_optimization_profiles)
    return real(self, network, config)
trt.Builder.create_optimization_profile = create
trt.Builder.build_serialized_network = build
"""


def test_builder_gets_the_sizes_and_may_not_round_to_tf32(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    options = ("-o", "a.plan", "--batch", "3", "--frames", "5:100:900")
    done = build(tmp_path, tiny_onnx, plugin_library, *options, before=SPY)
    fewest, optimal, most = ([n, 2, frames, 1025, 2] for n, frames in ((1, 5), (3, 100), (3, 900)))
    assert done.stdout == f"{[fewest, optimal, most]} False 1\na.plan\n"


def export_both(
    folder: Path, checkpoint: Path, graph: Path, plugin: Path | str, target: str
) -> subprocess.CompletedProcess[str]:
    """Exports a checkpoint with a graph that is exported already and the quickest of gates."""
    quick = f"""
import onnx
from bsmamba2.export import to_onnx
from bsmamba2.export.precision import gates
gates.PARITY_FRAMES = (1,)
to_onnx.export_graph = lambda *_: onnx.load({str(graph)!r})
"""
    chosen = ("--builder", "tensorrt-rtx", "--plugin", plugin, "-o", target)
    return bsm(folder, "export", checkpoint, "--trt", *chosen, before=quick, torch=True)


def test_checkpoint_gives_an_onnx_file_and_a_plan_of_it(
    tiny_checkpoint: Path, tiny_export: Path, plugin_library: Path, tmp_path: Path
):
    done = export_both(tmp_path, tiny_checkpoint, tiny_export, plugin_library, "a.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.onnx\na.plan\n"
    assert_sidecar_is_complete(tmp_path / "a.plan", tmp_path / "a.onnx", plugin_library)
    assert read_sidecar(tmp_path / "a.plan")[0].command.startswith("bsm export a.onnx --trt ")


def test_onnx_file_is_kept_when_its_plan_cannot_be_built(
    tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path
):
    done = export_both(tmp_path, tiny_checkpoint, tiny_export, "absent.so", "a.plan")
    assert done.returncode == 1
    assert done.stderr.endswith("a.onnx is written and kept.\nError: No such file: absent.so.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_info_describes_a_plan(
    tiny_onnx: Path, tiny_plan: Path, plugin_library: Path, tmp_path: Path
):
    plan = tmp_path / "a.plan"
    for end in ("", ".json"):
        shutil.copy(f"{tiny_plan}{end}", f"{plan}{end}")
    record: dict[str, Any] = json.loads(bsm(tmp_path, "info", plan, "--json").stdout)
    assert (record["kind"], record["sha256"]) == ("TensorRT plan", digest(plan))
    assert record["plan"]["plugin"]["library_sha256"] == digest(plugin_library)
    assert record["config"]["network"]["layers"] == 2
    rows = dict(re.split(r" {2,}", row, maxsplit=1) for row in
                bsm(tmp_path, "info", plan).stdout.splitlines())  # fmt: skip
    version = importlib.metadata.version("tensorrt_rtx")
    assert rows["built with"] == f"TensorRT-RTX {version}"
    assert rows["built from"] == f"tiny.onnx, SHA-256 {digest(tiny_onnx)}"
    assert (rows["chunks at a time"], rows["frames"]) == ("1 to 4, fastest at 4", "801")
    assert rows["plugin layers"] == "4 of version 1"
    with plan.open("ab") as file:
        file.write(b"\0")
    assert "is not the file that its sidecar describes" in refusal(bsm(tmp_path, "info", plan))


# --- the log, and stopping ---


def test_builder_speaks_through_logging(tiny_onnx: Path, plugin_library: Path, tmp_path: Path):
    arguments = ("export", tiny_onnx, "--trt", "--plugin", plugin_library, "-o", "a.plan")
    loud = bsm(tmp_path, "--debug", *arguments)
    assert loud.returncode == 0
    assert "INFO: Successfully created plugin: BiMamba2Scan" in loud.stderr


INTERRUPT = """
import os, signal
from bsmamba2.export import to_plan
real = to_plan.attach_progress
def attach(trt, report, goes_on):
    def interrupt(sentence):
        print(sentence, flush=True)
        os.kill(os.getpid(), signal.SIGINT)
    return real(trt, interrupt, goes_on, interval_s=0)
to_plan.attach_progress = attach
"""


def test_ctrl_c_ends_a_build_at_its_next_step(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    done = build(tmp_path, tiny_onnx, plugin_library, "-o", "a.plan", before=INTERRUPT)
    assert done.returncode == 130
    assert done.stderr.endswith("Interrupted.\n")
    assert re.fullmatch(r"\S.*: 1 of \d+\.\n", done.stdout)
    assert not list(tmp_path.iterdir())
