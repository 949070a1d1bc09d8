"""Files like those of the authors and of Music-Source-Separation-Training, for the tests."""

from __future__ import annotations

import argparse
import collections
import functools
import typing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.formats.tensors import tensor_shapes

Tensors = dict[str, torch.Tensor]


def model_of(name: str = "tiny") -> ModelConfig:
    return load_config(name).model


def random_weights(model: ModelConfig, seed: int = 0) -> Tensors:
    """Every tensor of the network, in its order, filled with noise."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator)
        for name, shape in tensor_shapes(model).items()
    }


@dataclass
class TrainerArguments:
    """A structured configuration, whose pickle names typing's constructs."""

    steps: int | None = None
    table: dict[str, typing.Any] = field(default_factory=dict)
    rates: list[typing.Union[int, float]] = field(default_factory=list)  # noqa: UP007
    folder: Path = Path("runs")


def lightning_checkpoint(state: Tensors, ema: Tensors | None = None) -> dict[str, typing.Any]:
    """A checkpoint as Lightning writes it, with all the other objects that real ones contain."""
    prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
    spectra = {"featurizer.window": torch.hann_window(2048)}
    spectra |= {"inverse_featurizer.window": torch.hann_window(2048)}
    spectra |= {"multi_featurizer.0.spectrogram.window": torch.hann_window(256)}
    moments = {i: {"step": torch.tensor(7.0), "exp_avg": t} for i, t in enumerate(state.values())}
    return {
        "epoch": 3,
        "global_step": np.int64(300),
        "pytorch-lightning_version": "2.1.0",
        "state_dict": collections.OrderedDict(spectra | prefixed),
        "loops": {"fit_loop": {"state_dict": {}, "progress": collections.defaultdict(int, a=1)}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'sdr'}": {
                "best_model_score": torch.tensor(9.5),
                "dirpath": Path("runs"),
                "best": np.float32(9.5),
                "kth": {Path("runs/last.ckpt"): torch.tensor(1.0)},
            }
        },
        "optimizer_states": [
            {
                "state": moments,
                "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999), "params": [0, 1]}],
                **({"ema": tuple(ema.values())} if ema else {}),
            }
        ],
        "lr_schedulers": [{"milestones": collections.Counter([3, 3]), "last": {1, 2}}],
        "hparams_name": "config",
        "hyper_parameters": {
            "config": OmegaConf.create({"model": {"bands": [2, 4], "name": "${x}"}, "x": "v"}),
            "trainer": OmegaConf.structured(TrainerArguments(table={"a": 1}, rates=[1, 2.0])),
            "namespace": argparse.Namespace(gpus=2),
            "optimizer": functools.partial(torch.optim.AdamW, lr=5e-4),
            "precision": torch.bfloat16,
            "device": torch.device("cuda:0"),
            "shape": torch.Size([1, 2]),
            "mean": np.arange(3.0),
            "kinds": (typing.Optional[int], list[int], type(None), complex(1, 2)),  # noqa: UP045
            "bytes": b"\xff\x00",
        },
        "rng": (torch.get_rng_state(), np.random.RandomState(0), np.random.default_rng(0)),
    }
