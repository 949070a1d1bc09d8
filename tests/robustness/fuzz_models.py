"""Model cases: foreign checkpoints, safetensors, ONNX files, plans, training runs."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from fuzz_bytes import HOSTILE_TEXTS, mutate_bytes, mutate_value
from fuzz_corpus import Case, Corpus, infer, put
from fuzz_pickles import PROGRAMS, repacked

from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.trt_plan import PlanRecord, PluginRecord, sidecar_text
from bsmamba2.system.files import sha256_file


def checkpoint_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A damaged or hostile file of `torch.save`, for `bsm import`."""
    zipped, old = _torch_files(corpus.safetensors)
    match random.randrange(6):
        case 0:
            kind, data = "pickle", random.choice(PROGRAMS)(random, old)
        case 1:
            kind, data = "checkpoint", mutate_bytes(random, random.choice((zipped, old)))
        case _:
            kind, data = "zip checkpoint", repacked(random, zipped)
    file = put(folder, random.choice(("model.ckpt", "model.pt", "model.bin")), data)
    options = ["--config", str(corpus.config), "-o", "out/model.safetensors"]
    more = random.choice(([], [], ["--ema"], ["--json"]))
    return Case(kind=kind, arguments=["import", file, *options, *more])


def safetensors_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A damaged safetensors file for every command that takes one."""
    data = corpus.safetensors.read_bytes()
    data = _safetensors(random, data) if random.random() < 0.7 else mutate_bytes(random, data)
    file = put(folder, "model.safetensors", data)
    song = put(folder, "song.wav", corpus.audio["wav"])
    config = ["--config", str(corpus.config)]
    arguments = random.choice(
        (
            ["info", file, *random.choice(([], ["--json"]))],
            ["import", file, "-o", "out/model.safetensors", *random.choice(([], config))],
            infer(file, song),
            ["parity", file, str(corpus.onnx), "--device", "cpu"],
            [
                "train",
                *config,
                "--data",
                str(corpus.songs),
                "--out",
                "out/run",
                "--start",
                file,
                "--cache",
                "out/cache",
                "--threads",
                "1",
                "-q",
            ],
        )
    )
    return Case(kind="safetensors", arguments=arguments)


def onnx_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A damaged ONNX file for every command that takes one."""
    data = corpus.onnx.read_bytes()
    data = _onnx(random, data) if random.random() < 0.6 else mutate_bytes(random, data)
    file = put(folder, "model.onnx", data)
    song = put(folder, "song.wav", corpus.audio["wav"])
    arguments = random.choice(
        (
            ["info", file, *random.choice(([], ["--json"]))],
            infer(file, song),
            infer(file, song),
            ["parity", file, str(corpus.onnx), "--audio", song, "--device", "cpu"],
            ["eval", file, "--data", str(corpus.songs), "--out", "out/eval", "--threads", "1"],
        )
    )
    return Case(kind="onnx", arguments=arguments)


def plan_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A file that is not a plan, with a sidecar that is damaged or wrong."""
    plan, text = _plan(corpus.onnx)
    if random.random() < 0.2:
        plan = mutate_bytes(random, plan)
    if random.random() < 0.3:
        text = mutate_bytes(random, text.encode()).decode("latin-1")
    elif random.random() < 0.9:
        values = json.loads(text)
        if random.random() < 0.4:
            _mutate_metadata(random, values["metadata"])
        else:
            values = mutate_value(random, values, random.choice((1, 1, 3)))
        text = json.dumps(values)
    file = put(folder, "model.plan", plan)
    if random.random() < 0.95:
        put(folder, "model.plan.json", text)
    song = put(folder, "song.wav", corpus.audio["wav"])
    arguments = random.choice(
        (
            ["info", file, *random.choice(([], ["--json"]))],
            infer(file, song).copy(),
            ["parity", file, str(corpus.onnx)],
        )
    )
    if "--device" in arguments:
        arguments[arguments.index("--device") + 1] = "cuda"
    return Case(kind="plan", arguments=arguments)


def run_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A damaged checkpoint in the folder of a run, from which `bsm train` then resumes."""
    data = (corpus.run / "last.ckpt").read_bytes()
    data = _run(random, data) if random.random() < 0.7 else mutate_bytes(random, data)
    (folder / "out" / "run").mkdir(parents=True)
    (folder / "out" / "run" / "last.ckpt").write_bytes(data)
    options = ["--config", str(corpus.config), "--data", str(corpus.songs), "--out", "out/run"]
    more = random.choice(([], ["--allow-config-change"]))
    return Case(kind="run", arguments=["train", *options, *more, "--cache", "out/cache"])


@functools.cache
def _torch_files(safetensors: Path) -> tuple[bytes, bytes]:
    """The network as `torch.save` writes it today and as it did before 1.6."""
    import torch

    from bsmamba2.checkpoints.weights import load_weights

    tensors, _ = load_weights(safetensors)
    files = []
    for is_zip in (True, False):
        with io.BytesIO() as file:
            content = {"epoch": 3, "state_dict": {f"model.{n}": t for n, t in tensors.items()}}
            torch.save(content, file, _use_new_zipfile_serialization=is_zip)
            files.append(file.getvalue())
    return files[0], files[1]


def _safetensors(random: Random, data: bytes) -> bytes:
    """A damaged header before the same numbers."""
    size = struct.unpack("<Q", data[:8])[0]
    header, numbers = json.loads(data[8 : 8 + size]), data[8 + size :]
    match random.randrange(6):
        case 0:
            text = b"[" * random.choice((10, 5_000, 1 << 20))
        case 1:
            text = b'{"a":' * random.choice((10, 2_000)) + b"1"
        case 2:
            stated = random.choice((0, 1, size - 1, size + 1, 1 << 40, (1 << 64) - 1))
            return struct.pack("<Q", stated) + data[8:]
        case 3:
            _mutate_metadata(random, header["__metadata__"])
            text = json.dumps(header).encode()
        case 4:
            name = random.choice([name for name in header if name != "__metadata__"])
            header[name] = mutate_value(random, header[name])
            text = json.dumps(header).encode()
        case _:
            text = json.dumps(mutate_value(random, header, random.choice((1, 3)))).encode()
    if random.random() < 0.1:
        text += b" " * (1 << 20)
    return struct.pack("<Q", len(text)) + text + numbers


def _mutate_metadata(random: Random, metadata: dict[str, Any]) -> None:
    """Changes a file's metadata, mostly within one of its JSON values."""
    key = random.choice(list(metadata))
    if random.random() < 0.1:
        metadata[key] = random.choice(
            ("", "[" * 3000, "{}", "null", "1e999", "x" * 100_000, '"\\ud800"')
        )
        return
    try:
        value = json.loads(metadata[key])
    except ValueError:
        metadata[key] = "1"
        return
    if key == "bsm.config" and random.random() < 0.3:
        value["audio"]["target"] = random.choice(HOSTILE_TEXTS)
    else:
        value = mutate_value(random, value)
    metadata[key] = json.dumps(value)


def _onnx(random: Random, data: bytes) -> bytes:
    """An ONNX file that is well-formed but has wrong content."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    match random.randrange(9):
        case 0 | 1:
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            _mutate_metadata(random, metadata)
            texts = {k: str(v).encode("utf-8", "replace").decode() for k, v in metadata.items()}
            onnx.helper.set_model_props(model, texts)
        case 2:
            tensor = random.choice([tensor for tensor in graph.initializer if tensor.dims])
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice((0, 1, -1, 1 << 40))
        case 3:
            tensor = random.choice(graph.initializer)
            tensor.data_type = random.randrange(24)
        case 4:  # numbers in another file
            tensor = random.choice(graph.initializer)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = random.choice(("../../corpus/song.wav", "/etc/hostname", "/dev/zero", "x", ""))
            tensor.external_data.add(key="location", value=place)
        case 5:
            node = random.choice(graph.node)
            node.op_type = random.choice(("Nothing", "Loop", "MatMul", "Relu", "", "Identity"))
        case 6:
            node = random.choice(graph.node)
            node.input[random.randrange(len(node.input))] = random.choice(("", "x", "spectrum"))
        case 7:
            tensor = random.choice(graph.initializer)  # NaN in the weights
            tensor.raw_data = b"\xff" * len(tensor.raw_data)
        case _:
            opset = random.choice(model.opset_import)
            opset.version = random.choice((0, 1, 7, 99, 1 << 40))
    return model.SerializeToString()


@functools.cache
def _plan(onnx: Path) -> tuple[bytes, str]:
    """Bytes that pass for a plan, and a sidecar that matches them."""
    plan = b"ftrt" + bytes(range(256)) * 40
    metadata = parse_metadata(read_onnx_file(onnx).metadata, onnx)
    record = PlanRecord(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        onnx=onnx.name,
        onnx_sha256=sha256_file(onnx),
        builder="tensorrt-rtx",
        builder_version="1.7.1.116",
        architectures=(),
        batch=(1, 4, 4),
        frames=(51, 51, 51),
        plugin_layers=2,
        plugin=PluginRecord(version="1", sources_sha256="0" * 64, library_sha256="0" * 64),
        command="bsm export small.onnx --trt",
    )
    return plan, sidecar_text(record, metadata)


def _run(random: Random, data: bytes) -> bytes:
    """A run's checkpoint with a changed value somewhere, or with another pickle."""
    if random.random() < 0.3:
        return repacked(random, data)
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True)
    if random.random() < 0.3:
        tensors = random.choice((content["network"], content["ema"]))
        name = random.choice(list(tensors))
        tensors[name] = random.choice(
            (tensors[name] * float("nan"), torch.zeros(7), torch.zeros(0))
        )
    else:
        content = mutate_value(random, content)
    with io.BytesIO() as file:
        try:
            torch.save(content, file)
        except RecursionError:  # lists nested too deeply
            return data[: len(data) // 2]
        return file.getvalue()
