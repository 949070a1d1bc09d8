"""A Triton model repository: read with Triton's own schema, and what it must not serve."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import RECORD
from processes import printed
from small_engines import small_metadata

from bsmamba2.cli import export as command
from bsmamba2.errors import BsmError, CheckpointError, EngineError, ExportError, FileError
from bsmamba2.export.plan.triton import QUEUE_DELAY_US, write_triton_repository
from bsmamba2.formats.trt_plan import sidecar_path, sidecar_text
from bsmamba2.system.files import sha256_file

FRAMES = small_metadata().model.audio.chunk_frames


def make_plan(folder: Path, content: bytes = b"a plan", **changes: Any) -> Path:
    """A plan that says it is TensorRT's: the repository's writer never looks into it."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "tiny.plan"
    plan.write_bytes(content)
    record = replace(RECORD, **({"plan_sha256": sha256_file(plan)} | changes))
    sidecar_path(plan).write_text(sidecar_text(record, small_metadata()))
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return make_plan(tmp_path / "built")


@pytest.fixture(scope="module")
def schema() -> Any:
    """The compiled model_config.proto of Triton's client, which imports nothing but protobuf."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or client.origin is None:
        pytest.skip("needs tritonclient")
    path = Path(client.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_of(model: Path, schema: Any) -> Any:
    """A ModelConfig; raises for a field that the schema lacks or of another type."""
    from google.protobuf import text_format

    return text_format.Parse((model / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())


# --- what is written ---


def test_repository_has_the_layout_of_triton(plan: Path, tmp_path: Path):
    model = write_triton_repository(plan, tmp_path / "models", name="voice")
    assert model == tmp_path / "models" / "voice"
    files = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "1/model.plan", "1/model.plan.json"}
    assert sha256_file(model / "1/model.plan") == sha256_file(plan)
    assert sidecar_path(model / "1/model.plan").read_text() == sidecar_path(plan).read_text()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["voice"]


def test_config_is_what_tritons_schema_takes(plan: Path, tmp_path: Path, schema: Any):
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    assert (config.name, config.platform, config.backend) == (
        "bsmamba2",
        "tensorrt_plan",
        "tensorrt",
    )
    assert config.default_model_filename == "model.plan"
    assert config.max_batch_size == 4
    for (tensor,), name in ((config.input, "spectrum"), (config.output, "mask")):
        assert tensor.name == name
        assert tensor.data_type == schema.TYPE_FP32
        assert list(tensor.dims) == [2, FRAMES, 1025, 2]
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == QUEUE_DELAY_US
    (group,) = config.instance_group
    assert (group.kind, group.count) == (schema.ModelInstanceGroup.KIND_GPU, 1)


def test_warm_up_is_within_the_plans_sizes(plan: Path, tmp_path: Path, schema: Any):
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 4]
    for sample in config.model_warmup:
        assert set(sample.inputs) == {"spectrum"}
        assert list(sample.inputs["spectrum"].dims) == [2, FRAMES, 1025, 2]
        assert sample.inputs["spectrum"].zero_data


def test_parameters_tell_a_client_how_to_make_spectra(plan: Path, tmp_path: Path, schema: Any):
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    found = {key: value.string_value for key, value in config.parameters.items()}
    audio = small_metadata().model.audio
    assert found["bsm.sample_rate"] == str(audio.sample_rate)
    assert (found["bsm.n_fft"], found["bsm.hop"]) == (str(audio.n_fft), str(audio.hop))
    assert found["bsm.plan_sha256"] == sha256_file(plan)
    assert found["bsm.builder"] == "tensorrt 10.14.1"


def test_free_frames_are_free_for_clients(tmp_path: Path, schema: Any):
    plan = make_plan(tmp_path / "built", frames=(1, 100, 801))
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    assert list(config.input[0].dims) == list(config.output[0].dims) == [2, -1, 1025, 2]
    assert list(config.model_warmup[0].inputs["spectrum"].dims) == [2, 100, 1025, 2]


def test_plan_of_single_chunks_prefers_no_batch(tmp_path: Path, schema: Any):
    plan = make_plan(tmp_path / "built", batch=(1, 1, 1))
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    assert config.max_batch_size == 1
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert [sample.batch_size for sample in config.model_warmup] == [1]


def test_strings_of_any_characters_stay_within_their_quotes(tmp_path: Path, schema: Any):
    plan = make_plan(tmp_path / "built", builder_version='1"\\\n}é')
    config = config_of(write_triton_repository(plan, tmp_path / "models"), schema)
    assert config.parameters["bsm.builder"].string_value == 'tensorrt 1"\\\n}?'


def test_plan_is_linked_where_that_works_and_copied_elsewhere(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    first = write_triton_repository(plan, tmp_path / "a", report=said.append)
    assert (first / "1/model.plan").samefile(plan)
    assert "a hard link to" in said[0]

    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    second = write_triton_repository(plan, tmp_path / "b", report=said.append)
    assert not (second / "1/model.plan").samefile(plan)
    assert (second / "1/model.plan").read_bytes() == plan.read_bytes()
    assert any("a copy of" in line for line in said)


def test_report_asks_for_the_plugin(plan: Path, tmp_path: Path):
    said: list[str] = []
    write_triton_repository(plan, tmp_path / "a", report=said.append)
    assert "The server must register the plugin library" in said[-1]


def test_written_again_it_replaces_its_model_and_no_other(plan: Path, tmp_path: Path):
    models = tmp_path / "models"
    other = write_triton_repository(plan, models, name="other")
    write_triton_repository(plan, models)
    new = make_plan(tmp_path / "new", b"a newer plan")
    model = write_triton_repository(new, models)
    assert (model / "1/model.plan").read_bytes() == b"a newer plan"
    assert (other / "1/model.plan").read_bytes() == plan.read_bytes() == b"a plan"
    assert {path.name for path in models.iterdir()} == {"bsmamba2", "other"}


def test_writing_imports_neither_torch_nor_onnx():
    code = (
        "import sys, bsmamba2.export.plan.triton\n"
        "assert not {'torch', 'onnx', 'tensorrt', 'google.protobuf'} & set(sys.modules)"
    )
    printed(code)


# --- the command ---


def bsm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("bsm")), "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_puts_a_plan_under_its_own_name(plan: Path, tmp_path: Path, schema: Any):
    done = bsm(plan, "--triton", tmp_path / "models")
    model = tmp_path / "models" / "tiny"
    assert (done.returncode, done.stdout) == (0, f"{model}\n")
    assert config_of(model, schema).name == "tiny"
    done = bsm(plan, "--triton", tmp_path / "models", "--json")
    assert json.loads(done.stdout) == {"triton": str(model)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "is built already: it goes with --triton DIR only."),
        (("--triton", "models", "--trt"), "is built already: it goes with --triton DIR only."),
        (("--triton", "models", "--batch", "2"), "is built already: it goes with"),
    ],
)
def test_plan_goes_with_nothing_else(plan: Path, arguments: tuple[str, ...], sentence: str):
    done = bsm(plan, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_repository_needs_a_plan(tmp_path: Path):
    done = bsm("default", "--triton", tmp_path)
    assert done.returncode == 2
    assert "--triton is about a plan: add --trt, or name a plan." in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")
def test_tensorrt_rtx_is_refused_before_it_builds(tmp_path: Path):
    options = ("--trt", "--builder", "tensorrt-rtx", "-o", tmp_path / "model.plan")
    done = bsm("default", *options, "--triton", tmp_path / "models")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Triton cannot load ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "foreign"), [("a b", False), ("model", True)])
def test_target_is_refused_before_export_and_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, foreign: bool
):
    def work(*_: object) -> None:
        raise AssertionError("worked")

    monkeypatch.setattr(command, "_export", work)
    monkeypatch.setattr(command, "_build", work)
    if foreign:
        (tmp_path / "models" / name).mkdir(parents=True)
    options = ["--trt", "-o", f"{tmp_path}/{name}.plan", "--triton", f"{tmp_path}/models"]
    with pytest.raises(ExportError, match="was not written by" if foreign else "is no name for"):
        command.command.main(["tiny", *options], standalone_mode=False)


def test_what_is_written_is_kept_and_named_when_serving_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Export and build have tests of their own, and are left out here."""
    for name in ("_export", "_build"):
        monkeypatch.setattr(command, name, lambda *_: {})
    monkeypatch.setattr(command, "_check_triton", lambda *_: None)
    plan = make_plan(tmp_path, builder="tensorrt-rtx")
    options = ["--trt", "-o", str(plan), "--triton", f"{tmp_path}/models"]
    with pytest.raises(ExportError, match="Triton cannot load"):
        command.command.main(["tiny", *options], standalone_mode=False)
    kept = [f"{path} is written and kept." for path in (plan.with_suffix(".onnx"), plan)]
    assert capsys.readouterr().err.splitlines() == kept
    assert plan.exists()


# --- what is refused ---


def refused(plan: Path, folder: Path, error: type[BsmError], sentence: str, **options: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(error, match=sentence):
        write_triton_repository(plan, folder, **options)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ü", "a\n"])
def test_unfit_name_is_refused(plan: Path, tmp_path: Path, name: str):
    refused(plan, tmp_path / "models", ExportError, "is no name for a model", name=name)


def test_plan_of_tensorrt_rtx_is_refused(tmp_path: Path):
    plan = make_plan(tmp_path / "built", builder="tensorrt-rtx")
    refused(
        plan, tmp_path / "models", ExportError, r"^Triton cannot load .*, a plan of tensorrt-rtx: "
    )


def test_plan_that_takes_no_single_chunk_is_refused(tmp_path: Path):
    plan = make_plan(tmp_path / "built", batch=(2, 4, 8))
    refused(plan, tmp_path / "models", ExportError, "takes no fewer than 2 chunks at a time")


def test_changed_byte_is_refused(plan: Path, tmp_path: Path):
    plan.write_bytes(b"b plan")
    refused(plan, tmp_path / "models", EngineError, "is not the file that its sidecar describes")


def test_missing_files_are_refused(plan: Path, tmp_path: Path):
    models = tmp_path / "models"
    refused(tmp_path / "absent.plan", models, BsmError, r"^No such file: ")
    sidecar_path(plan).unlink()
    refused(plan, models, CheckpointError, "has no readable sidecar tiny.plan.json")


def test_model_of_somebody_else_is_not_replaced(plan: Path, tmp_path: Path):
    own = tmp_path / "models" / "bsmamba2"
    own.mkdir(parents=True)
    refused(plan, tmp_path / "models", ExportError, "was not written by 'bsm export'")
    (own / "config.pbtxt").write_text('name: "bsmamba2"\n')
    refused(plan, tmp_path / "models", ExportError, "was not written by 'bsm export'")


def test_folder_that_is_a_file_is_refused(plan: Path, tmp_path: Path):
    (tmp_path / "models").write_text("")
    refused(plan, tmp_path / "models", ExportError, r"^Cannot write .*: ")


def test_failure_leaves_the_old_model(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from bsmamba2.export.plan import triton

    model = write_triton_repository(plan, tmp_path / "models")
    before = json.loads(sidecar_path(model / "1/model.plan").read_text())
    new = make_plan(tmp_path / "new", b"a newer plan")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton.shutil, "copyfile", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_triton_repository(new, tmp_path / "models")
    assert json.loads(sidecar_path(model / "1/model.plan").read_text()) == before
    assert (model / "1/model.plan").read_bytes() == b"a plan"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["bsmamba2"]


KILLED = """
import sys, time
from pathlib import Path
from bsmamba2.export.plan import triton
def hang(*_: object) -> None:
    print("writing", flush=True)
    time.sleep(60)
triton.shutil.copyfile = hang
triton.write_triton_repository(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_what_a_killed_export_left_is_removed_by_the_next(plan: Path, tmp_path: Path):
    models = tmp_path / "models"
    command = [sys.executable, "-c", KILLED, str(plan), str(models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert [path.name[:9] for path in models.iterdir()] == [".partial-"]
    write_triton_repository(plan, models)
    assert [path.name for path in models.iterdir()] == ["bsmamba2"]
