"""Laws of reading and writing weights."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import lightning_checkpoint, model_of, random_weights
from safetensors.torch import load_file, save_file

from bsmamba2.checkpoints.foreign import import_foreign
from bsmamba2.checkpoints.weights import load_weights, save_weights
from bsmamba2.errors import BsmError, CheckpointError, ConfigError
from bsmamba2.formats.metadata import Metadata, Provenance, parse_metadata
from bsmamba2.system.files import read_safetensors_header, sha256_file

TINY = model_of("tiny")
STATE = random_weights(TINY)
METADATA = Metadata(
    model=TINY, provenance=Provenance(source="random", trained=False), stems=("vocals", "other")
)


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def imported(path: Path, **options: Any) -> tuple[dict[str, torch.Tensor], Metadata]:
    foreign = import_foreign(path, **options)
    return foreign.tensors, foreign.metadata


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_weights(tmp_path / "new" / "a.safetensors", STATE, METADATA)
    tensors, metadata = load_weights(tmp_path / "new" / "a.safetensors")
    assert_same(tensors, STATE)
    assert metadata == METADATA
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_equal_weights_make_equal_files_that_safetensors_reads(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", STATE, METADATA)
    save_weights(tmp_path / "b.safetensors", STATE, METADATA)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    back = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in STATE.items())


def test_saving_other_tensors_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"1 missing \(final_norm\.gamma\)"):
        save_weights(
            tmp_path / "a.safetensors",
            {n: t for n, t in STATE.items() if n != "final_norm.gamma"},
            METADATA,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_with_a_warning(
    tmp_path: Path, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({n: t.to(dtype) for n, t in STATE.items()}, tmp_path / "a.safetensors")
    tensors, _ = imported(tmp_path / "a.safetensors", config="tiny")
    assert_same(tensors, {n: t.to(dtype).float() for n, t in STATE.items()})
    assert str(dtype).removeprefix("torch.") in caplog.text
    save_file({n: t.int() for n, t in STATE.items()}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="int32"):
        imported(tmp_path / "a.safetensors", config="tiny")


# Import: containers


def test_lightning_file_gives_its_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "authors.ckpt"
    torch.save(lightning_checkpoint(STATE), path)
    tensors, metadata = imported(path, config="tiny")
    assert_same(tensors, STATE)
    assert metadata.model == TINY
    assert metadata.provenance == Provenance(
        source="authors.ckpt", source_sha256=sha256_file(path), licence="undeclared", trained=True
    )


@pytest.mark.parametrize("protocol", [4, 5])
def test_pickles_that_torch_does_not_read_are_refused_with_what_to_do(
    tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "a.ckpt"
    content = lightning_checkpoint(STATE)
    torch.save(content, path, pickle_protocol=protocol)
    words = r"pickle protocol 4 or newer, which PyTorch's.* save its state_dict with torch\.save"
    with pytest.raises(CheckpointError, match=words):
        import_foreign(path)


@pytest.mark.parametrize("key", [None, "model_state_dict", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model._orig_mod."])
def test_a_nested_state_dict_is_found_and_prefixes_of_wrappers_go(
    tmp_path: Path, key: str | None, prefix: str
) -> None:
    path = tmp_path / "bs_mamba2_vocals.ckpt"
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    torch.save({key: state, "epoch": 1} if key else state, path)
    assert_same(imported(path, config="tiny")[0], STATE)


def test_parameters_and_views_are_read_as_plain_tensors(tmp_path: Path) -> None:
    flat = torch.randn(sum(t.numel() for t in STATE.values()))
    parts = flat.split([t.numel() for t in STATE.values()])
    values = {n: p.view(t.shape) for (n, t), p in zip(STATE.items(), parts, strict=True)}
    state = {n: torch.nn.Parameter(t) for n, t in values.items()}
    weight = state["layers.0.0.linear.weight"]
    big = torch.randn(weight.shape[1], 2 * weight.shape[0], 1)
    view = big.transpose(0, 1)[::2]
    torch.save(state | {"layers.0.0.linear.weight": view}, tmp_path / "a.ckpt")
    tensors, _ = imported(tmp_path / "a.ckpt", config="tiny")
    assert_same(tensors, values | {"layers.0.0.linear.weight": view})


def test_ema_gives_the_moving_average(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ema = {n: t + 0.01 for n, t in STATE.items()}
    torch.save(lightning_checkpoint(STATE, ema), tmp_path / "a.ckpt")
    assert_same(imported(tmp_path / "a.ckpt", ema=True, config="tiny")[0], ema)
    assert_same(imported(tmp_path / "a.ckpt", config="tiny")[0], STATE)
    assert not caplog.records


def test_ema_unlike_the_weights_is_imported_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ema = random_weights(TINY, seed=1)
    torch.save(lightning_checkpoint(STATE, ema), tmp_path / "a.ckpt")
    assert_same(imported(tmp_path / "a.ckpt", ema=True, config="tiny")[0], ema)
    assert "order may differ" in caplog.text


def test_ema_that_is_absent_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(lightning_checkpoint(STATE), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="no moving average"):
        imported(tmp_path / "a.ckpt", ema=True, config="tiny")
    torch.save(lightning_checkpoint(STATE, dict(list(STATE.items())[1:])), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="do not match"):
        imported(tmp_path / "a.ckpt", ema=True, config="tiny")


def test_import_of_our_own_file_keeps_its_metadata(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", STATE, METADATA)
    tensors, metadata = imported(tmp_path / "a.safetensors")
    assert_same(tensors, STATE)
    assert metadata == METADATA


# Import: bad files


def test_missing_unknown_and_misshapen_tensors_are_listed(tmp_path: Path) -> None:
    state = dict(STATE)
    del state["final_norm.gamma"]
    state["visitor.weight"] = torch.zeros(1)
    state["layers.0.0.linear.bias"] = torch.zeros(17)
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError) as error:
        imported(tmp_path / "a.ckpt", config="tiny")
    sentence = str(error.value)
    assert "1 missing (final_norm.gamma)" in sentence
    assert "1 unknown (visitor.weight)" in sentence
    assert "layers.0.0.linear.bias is [17] instead of [16]" in sentence


def test_another_size_names_the_option(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="--config"):
        imported(tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="No configuration"):
        imported(tmp_path / "a.ckpt", config="huge")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    broken = STATE["final_norm.gamma"].clone()
    broken[3] = value
    torch.save(STATE | {"final_norm.gamma": broken}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"final_norm\.gamma"):
        imported(tmp_path / "a.ckpt", config="tiny")


def zip_with(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_files_that_are_no_checkpoints_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "noise.ckpt").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.ckpt").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "text.safetensors").write_text("hello, this is text")
    (tmp_path / "short.safetensors").write_bytes(b"\x00")
    torch.save([1, 2], tmp_path / "numbers.ckpt")
    torch.save({"epoch": 3}, tmp_path / "epoch.ckpt")
    torch.save({1: torch.zeros(2)}, tmp_path / "keys.ckpt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.ckpt")
    torch.save(STATE["final_norm.gamma"].to_sparse(), tmp_path / "sparse.ckpt")
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "expanded.ckpt")
    zip_with(tmp_path / "zip.ckpt", hello=b"world")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 13
    for path in paths:
        with pytest.raises(CheckpointError) as error:
            imported(path, config="tiny")
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)
    with pytest.raises(BsmError, match="No such file"):
        imported(tmp_path / "absent.ckpt")
    with pytest.raises(BsmError, match="folder"):
        imported(tmp_path)


@pytest.mark.parametrize("container", ["zip", "safetensors"])
def test_truncated_files_are_one_sentence(tmp_path: Path, container: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / f"a.{container}"
    if container == "safetensors":
        save_weights(whole, STATE, METADATA)
    else:
        torch.save(STATE, whole)
    data = whole.read_bytes()
    generator = np.random.default_rng(0)
    for length in [1, 8, 9, 100, len(data) - 1, *generator.integers(1, len(data), 15)]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            imported(path, config="tiny")
        with pytest.raises(CheckpointError):
            load_weights(path)


def test_flipped_weights_of_a_zip_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(STATE, path)
    needle = STATE["mask_estimators.0.to_freqs.3.0.0.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        imported(path, config="tiny")


def test_load_names_the_command_for_a_foreign_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="bsm import"):
        load_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 3000 + b"1",
        b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}',
        b'{"__metadata__": {"bsm.version": 1}}',
    ],
)
def test_hostile_safetensors_headers_are_one_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(CheckpointError, match="header cannot be read"):
        read_safetensors_header(path)


def test_header_as_large_as_the_file_is_not_read(tmp_path: Path) -> None:
    """JSON of 100 MB would take gigabytes."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((1 << 26).to_bytes(8, "little"))
        file.truncate(1 << 27)
    with pytest.raises(CheckpointError, match="67108864 bytes long"):
        read_safetensors_header(path)


@pytest.mark.parametrize(
    ("key", "why"),
    [(5, "no named tensors"), (2.0, "no named tensors"), (1 << 20_000, "Unsupported")],
    ids=range(3),
)
def test_tensors_whose_names_are_no_texts_are_refused(
    tmp_path: Path, key: object, why: str
) -> None:
    torch.save({key: torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=why):
        imported(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bsm.config", "[" * 3000),
        ("bsm.provenance", '{"source": "x", "source_sha256": null, "licence": "y"}'),
        ("bsm.provenance", '{"source": "x", "source_sha256": null, "licence": "y", "trained": 1}'),
        ("bsm.parity", '[{"frames": 1e999, "p999": 0, "relative_rms": 0}]'),
        ("bsm.format", "[]"),
        ("bsm.stems", '"vocals"'),
        ("bsm.stems", "[1]"),
    ],
)
def test_hostile_metadata_is_one_sentence(key: str, value: str) -> None:
    with pytest.raises(CheckpointError, match="damaged BSMamba2 metadata") as error:
        parse_metadata(METADATA.to_pairs() | {key: value}, "a.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 9999, "a\nb"])
def test_hostile_names_of_tensors_are_shown_short_and_on_one_line(
    tmp_path: Path, name: str
) -> None:
    for content in ({name: torch.zeros(1)}, {name: 5}, {name: torch.zeros(1), f"model.{name}": 5}):
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError) as error:
            imported(tmp_path / "a.ckpt", config="tiny")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700
