"""A model repository of NVIDIA's Triton Inference Server for a plan.

    FOLDER/NAME/config.pbtxt            what a client may send, and how chunks become batches
    FOLDER/NAME/1/model.plan            the plan, a hard link where the file system has them
    FOLDER/NAME/1/model.plan.json       its sidecar

config.pbtxt is a ModelConfig of Triton's model_config.proto, in protobuf's text format. How the
server gets the plugin is in plugins/SERVING.md.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import ExportError
from bsmamba2.formats.metadata import Metadata
from bsmamba2.formats.trt_plan import PlanRecord, read_plan, read_sidecar, sidecar_path
from bsmamba2.system.atomic import atomic_folder, link_or_copy, writing

DEFAULT_NAME = "bsmamba2"
QUEUE_DELAY_US = 2000
"""How long a chunk may wait for others: a third of what one takes at the aimed speed."""
PLAN = "model.plan"
_CONFIG = "config.pbtxt"
_HEAD = "# Written by 'bsm export --triton' of bsmamba2."
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def write_triton_repository(
    plan: Path,
    folder: Path,
    *,
    name: str = DEFAULT_NAME,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes a plan as a model of a Triton model repository; all of it appears at once.

    Args:
        plan: A plan of `bsm export --trt`, its sidecar beside it.
        folder: The repository; made if need be, other models in it stay.
        name: Of the model, which is that of its folder. One that this function wrote is replaced.
        report: Called with a sentence at each step.

    Returns:
        The model's folder, `folder/name`.

    Raises:
        BsmError: No such plan, or the folder cannot be written.
        CheckpointError: The plan has no sidecar, or a damaged one.
        EngineError: The plan is not the one that its sidecar describes.
        ExportError: A plan that Triton cannot serve, an unfit name, or a model of the same name
            that is somebody else's.
    """
    check_target(folder, name)
    record, metadata = read_sidecar(plan)
    _check_servable(plan, record)
    read_plan(plan, record)
    target = folder / name
    with atomic_folder(target) as partial, writing(target):
        (partial / _CONFIG).write_text(model_config(name, record, metadata), "utf-8")
        version = partial / "1"
        version.mkdir()
        linked = link_or_copy(plan.resolve(), version / PLAN)
        shutil.copyfile(sidecar_path(plan), sidecar_path(version / PLAN))
    report(f"{target / '1' / PLAN} is {'a hard link to' if linked else 'a copy of'} {plan}.")
    report("The server must register the plugin library: see plugins/SERVING.md.")
    return target


def model_config(name: str, record: PlanRecord, metadata: Metadata) -> str:
    """The text of config.pbtxt."""
    audio, most = metadata.model.audio, record.batch[2]
    fewest_frames, _, most_frames = record.frames
    dims = _dims(audio, most_frames if fewest_frames == most_frames else -1)
    preferred = sorted({size for size in record.batch[1:] if size > 1})
    batching = (
        [f"  preferred_batch_size: [ {', '.join(map(str, preferred))} ]"] if preferred else []
    )
    lines = [
        _HEAD,
        f"name: {_quoted(name)}",
        'platform: "tensorrt_plan"',
        'backend: "tensorrt"',
        f"default_model_filename: {_quoted(PLAN)}",
        f"max_batch_size: {most}  # chunks",
        f'input [ {{ name: "spectrum" data_type: TYPE_FP32 dims: {dims} }} ]',
        f'output [ {{ name: "mask" data_type: TYPE_FP32 dims: {dims} }} ]',
        "dynamic_batching {",
        *batching,
        f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
        "}",
        "# One execution context, and one stream, on each GPU: chunks fill it by themselves.",
        "instance_group [ { kind: KIND_GPU count: 1 } ]",
        *_warm_up(audio, record),
        *_parameters(record, metadata),
    ]
    return "\n".join(lines) + "\n"


def _dims(audio: AudioConfig, frames: int) -> str:
    """Of the spectrum and of the mask, without the batch."""
    return f"[ {audio.channels}, {frames}, {audio.bins}, 2 ]"


def _warm_up(audio: AudioConfig, record: PlanRecord) -> Iterator[str]:
    """A silent chunk, and a full batch of them, before the model counts as ready."""
    dims = _dims(audio, record.frames[1])
    for batch in sorted({1, record.batch[2]}):
        yield "model_warmup [ {"
        yield f'  name: "{batch} of silence" batch_size: {batch}'
        yield '  inputs { key: "spectrum"'
        yield f"    value {{ data_type: TYPE_FP32 dims: {dims} zero_data: true }} }}"
        yield "} ]"


def _parameters(record: PlanRecord, metadata: Metadata) -> Iterator[str]:
    """What a client needs to make spectra, and from what the plan was made."""
    audio = metadata.model.audio
    values = {
        "sample_rate": audio.sample_rate,
        "chunk_samples": audio.chunk_samples,
        "n_fft": audio.n_fft,
        "hop": audio.hop,
        "window": "periodic Hann; frames centred, reflected at the ends, not normalised",
        "target": audio.target,
        "precision": metadata.precision,
        "builder": f"{record.builder} {record.builder_version}",
        "architectures": ", ".join(record.architectures) or "any",
        "onnx_sha256": record.onnx_sha256,
        "plan_sha256": record.plan_sha256,
    }
    for key, value in values.items():
        yield f'parameters {{ key: "bsm.{key}" value {{ string_value: {_quoted(str(value))} }} }}'


def _quoted(text: str) -> str:
    """A string of protobuf's text format, which takes JSON's escapes of ASCII."""
    return json.dumps(text.encode("ascii", "replace").decode())


def check_builder(plan: Path, builder: str) -> None:
    """Raises ExportError for a builder of `plan_file.BUILDERS` whose plans Triton does not load."""
    if builder != "tensorrt":
        raise ExportError(
            f"Triton cannot load {plan}, a plan of {builder}: build it with '--builder tensorrt', "
            "of the version that the server has."
        )


def check_target(folder: Path, name: str) -> None:
    """Raises ExportError unless a model of that name may be written into a repository."""
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"'{name}' is no name for a model: letters, digits, '.', '_' and '-', the first one a "
            "letter or digit."
        )
    target = folder / name
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"Cannot write {target}: {folder} is no folder.")
    if target.exists() and not _is_ours(target):
        raise ExportError(f"{target} was not written by 'bsm export': name another folder.")


def _check_servable(plan: Path, record: PlanRecord) -> None:
    """Raises ExportError for what Triton's tensorrt backend cannot load or feed."""
    check_builder(plan, record.builder)
    if record.batch[0] > 1:
        raise ExportError(
            f"{plan} takes no fewer than {record.batch[0]} chunks at a time, and Triton sends "
            "single ones: build it for batches from 1."
        )


def _is_ours(model: Path) -> bool:
    try:
        return (model / _CONFIG).read_text("utf-8", errors="replace").startswith(_HEAD)
    except OSError:
        return False
