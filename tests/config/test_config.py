"""Laws of configurations and of the shapes that follow from them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from bsmamba2.config.file import Config, load_config, override_config
from bsmamba2.config.model import model_config
from bsmamba2.config.reading import config_names
from bsmamba2.errors import CheckpointError, ConfigError
from bsmamba2.formats.tensors import check_shapes, parameter_count, tensor_shapes

PUBLISHED: dict[str, Any] = yaml.safe_load(
    resources.files("bsmamba2.config").joinpath("bsmamba2.yaml").read_text("utf-8")
)
KEYS = [(section, key) for section, values in PUBLISHED.items() for key in values]


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def changed(section: str, key: str, value: Any) -> dict[str, Any]:
    return PUBLISHED | {section: PUBLISHED[section] | {key: value}}


def without(section: str, key: str) -> dict[str, Any]:
    rest = {name: value for name, value in PUBLISHED[section].items() if name != key}
    return PUBLISHED | {section: rest}


def plain(value: Any) -> Any:
    """Converts tuples to lists, as YAML has them."""
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_published_network_has_675_tensors_and_48_098_188_parameters() -> None:
    model = load_config("bsmamba2").model
    assert len(tensor_shapes(model)) == 675
    assert parameter_count(model) == 48_098_188


def test_derived_numbers_are_those_of_the_paper() -> None:
    config = load_config("bsmamba2")
    assert (config.audio.bins, config.audio.chunk_samples, config.audio.chunk_frames) == (
        1025,
        352_800,
        801,
    )
    network = config.network
    assert (len(network.band_widths), sum(network.band_widths)) == (62, 1025)
    assert (network.d_inner, network.n_heads, network.d_in_proj) == (1024, 16, 2320)


def test_published_shapes() -> None:
    shapes = tensor_shapes(load_config("bsmamba2").model)
    assert shapes["band_split.to_features.61.1.weight"] == (256, 516)
    assert shapes["layers.5.1.backward_blocks.0.mixer.in_proj.weight"] == (2320, 256)
    assert shapes["layers.0.0.forward_blocks.0.mixer.conv1d.weight"] == (1280, 1, 4)
    assert shapes["layers.0.1.linear.weight"] == (512, 256, 1)
    assert shapes["mask_estimators.0.to_freqs.61.0.2.weight"] == (1032, 1024)
    assert math.prod(shapes["final_norm.gamma"]) == 256


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_is_read(section: str, key: str) -> None:
    assert plain(getattr(getattr(load_config("bsmamba2"), section), key)) == PUBLISHED[section][key]


def test_every_field_is_in_the_published_file() -> None:
    config = load_config("bsmamba2")
    for section in fields(Config):
        part = getattr(config, section.name)
        assert is_dataclass(part)
        assert {field.name for field in fields(part)} == set(PUBLISHED[section.name])


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_missing_keys_are_named(tmp_path: Path, section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks '{section}.{key}'"):
        load_config(write(tmp_path / "a.yaml", without(section, key)))


@pytest.mark.parametrize(("section", "key"), KEYS)
@pytest.mark.parametrize("value", [{"a": 1}, None])
def test_values_of_a_wrong_type_are_named(
    tmp_path: Path, section: str, key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"'{section}.{key}' must be"):
        load_config(write(tmp_path / "a.yaml", changed(section, key, value)))


def test_unknown_keys_are_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'network\.d_modle'; did you mean 'network\.d_model'"):
        load_config(write(tmp_path / "a.yaml", changed("network", "d_modle", 1)))
    with pytest.raises(ConfigError, match="'netwrok'; did you mean 'network'"):
        load_config(write(tmp_path / "a.yaml", PUBLISHED | {"netwrok": {}}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("network", "layers", 0),
        ("network", "layers", True),
        ("network", "headdim", 60),
        ("network", "bands", [[2, 24]]),
        ("network", "bands", []),
        ("network", "bands", [[2]]),
        ("network", "a_init", [2.0, 1.0]),
        ("audio", "n_fft", 2047),
        ("audio", "hop", 2000),
        ("audio", "hop", 442),
        ("audio", "chunk_s", 0),
        ("data", "gain", [0.5, math.inf]),
        ("training", "weight_decay", math.nan),
    ],
)
def test_numbers_that_cannot_be_are_named(
    tmp_path: Path, section: str, key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        load_config(write(tmp_path / "a.yaml", changed(section, key, value)))


def test_base_states_only_what_differs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", {"base": "bsmamba2", "network": {"layers": 2}})
    published, config = load_config("bsmamba2"), load_config(path)
    assert config == replace(published, network=replace(published.network, layers=2))


@pytest.mark.parametrize("absolute", [True, False])
def test_base_may_be_a_file_with_a_base(tmp_path: Path, absolute: bool) -> None:
    first = write(tmp_path / "a.yaml", {"base": "tiny", "network": {"layers": 1}})
    base = str(first) if absolute else first.name  # relative to the file that names it
    second = write(tmp_path / "b.yaml", {"base": base, "training": {"seed": 1}})
    assert load_config(second).network.layers == 1
    assert load_config(second).training.seed == 1


def test_base_in_a_circle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match="circle"):
        load_config(write(path, {"base": str(path)}))


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "network: 3", "base: tiny\nnetwork: 3"])
def test_files_that_are_no_configuration_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "a.yaml")
    assert "\n" not in str(error.value)


def test_yaml_constructs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "a.yaml")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(config_names())):
        load_config("absent")


@pytest.mark.parametrize("name", config_names())
def test_model_configuration_survives_plain_values(name: str) -> None:
    model = load_config(name).model
    assert model_config(model.to_dict()) == model


def test_shapes_fit_themselves_and_nothing_else() -> None:
    tiny, published = load_config("tiny").model, load_config("bsmamba2").model
    check_shapes(tensor_shapes(tiny), tiny, "a")
    with pytest.raises(CheckpointError, match=r"missing .* and 157 more"):
        check_shapes(tensor_shapes(tiny), published, "a")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "audio: 2001-99-99",  # a ValueError of PyYAML's own
        "network: {layers: " + "9" * 5000 + "}",
        "network: {layers: 0x" + "f" * 5000 + "}",  # Python refuses to print such a number
        "network: {d_model: !!bool x}",
        "[" * 5000,
        "base: tiny\nnetwork: {norm_eps: " + "9" * 400 + "}",
        BOMB + "audio: {hop: *i}",
        "base: /dev/zero",
        'base: "a\\0b"',
        "base: [1]",
        "a: " + "x" * (1 << 20),
        "base: tiny\nnetwork: {layers: 1000000000}",
        "base: tiny\nnetwork: {bands: [[1, 1025000000000]]}",
        "base: tiny\naudio: {target: " + "x" * 101 + "}",
        'base: tiny\naudio: {target: ""}',
        'base: tiny\naudio: {target: "a\\nb"}',
        "base: tiny\naudio: {target: [" + "x, " * 1000 + "]}",
    ],
)
def test_hostile_yaml_is_one_short_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "a.yaml")
    sentence = str(error.value)
    assert "\n" not in sentence
    assert len(sentence.replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize("value", ["2001-99-99", "x" * 9999, "a: b\nc", "\ufeff", "[" * 2000])
def test_hostile_assignments_are_one_short_sentence(value: str) -> None:
    with pytest.raises(ConfigError) as error:
        override_config(load_config("tiny"), [f"audio.hop={value}"])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
