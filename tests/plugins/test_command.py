"""Laws of `bsm plugin build`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from processes import Outcome, bsm

from bsmamba2.cli import cli, main
from bsmamba2.plugins.compilation import Options
from bsmamba2.system.files import sha256_file


@pytest.fixture
def include(tmp_path: Path) -> str:
    """A folder that looks like TensorRT's headers."""
    (tmp_path / "NvInferRuntime.h").write_text("")
    return str(tmp_path)


def run(*arguments: str) -> Outcome:
    return bsm("plugin", "build", *arguments)


def test_paths_go_to_stdout_and_progress_to_stderr(compiled: list[Options], include: str) -> None:
    result = run("--arch", "80,90", "--tensorrt-include", include, "--jobs", "3")
    scan, plugin = result.out.split()
    assert scan.endswith("libbsm_scan.so")
    assert plugin.endswith("libbsm_trt_plugin.so")
    assert Path(scan).is_file()
    assert "18 kernels for sm_80, sm_90" in result.err
    (options,) = compiled
    assert options.jobs == 3
    assert str(options.headers) == include


def test_second_call_prints_the_same_without_progress(compiled: list[Options]) -> None:
    first, second = (run("--arch", "90", "--no-tensorrt") for _ in range(2))
    assert second.out == first.out
    assert first.err
    assert not second.err
    assert run("--arch", "90", "--no-tensorrt", "--force").err


def test_json_has_paths_and_hashes(compiled: list[Options]) -> None:
    report = json.loads(run("--arch", "90", "--no-tensorrt", "--json").out)
    assert report["architectures"] == ["sm_90"]
    assert report["scan"]["sha256"] == sha256_file(Path(report["scan"]["path"]))
    assert report["plugin"] is None


def test_options_that_exclude_each_other_are_refused(include: str) -> None:
    with pytest.raises(click.UsageError):
        cli.main(
            ["plugin", "build", "--no-tensorrt", "--tensorrt-include", include],
            standalone_mode=False,
        )


def test_errors_are_one_sentence(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["plugin", "build", "--no-tensorrt"])
    assert exit_.value.code == 1
    out, err = capsys.readouterr()
    assert not out
    assert err == ("Error: No NVIDIA GPU found here: name a target, such as --arch 90 or all.\n")
