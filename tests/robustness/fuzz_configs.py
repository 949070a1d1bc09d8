"""YAML cases: configurations, model cards, and values of `--set`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml
from fuzz_bytes import HOSTILE_TEXTS, mutate_bytes, mutate_value, nested
from fuzz_corpus import Case, Corpus, put

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_TEXTS = (
    *("", "null", "- 1\n- 2", "network: 5", "? [a]\n: 1", "\t- a", "&a [*a]", "audio: &a {x: *a}"),
    *(
        "!!python/object/apply:os.system ['touch called']",
        "!!binary x",
        "--- 1\n--- 2",
        "\ufeffa: 1",
    ),
    *(
        "audio: 2001-99-99",
        "audio: {hop: 2001-01-01 99:99:99}",
        "base: small.yaml",
        "base: ../../x",
    ),
    *("base: config.yaml", "base: /dev/zero", "base: .", 'base: "a\\0b"', "base: [1]", "base: {}"),
    *("network: {layers: " + "9" * 5000 + "}", "network: {layers: 0x" + "f" * 5000 + "}"),
    *("network: {layers: 1" + ":59" * 3000 + "}", "network: {bands: [[1, 1025000000000]]}"),
    *("[" * 900, "[" * 50_000, "{" * 3000, "a: " * 2000, "<<: [1]", "<<: {<<: {a: 1}}"),
    *("base: tiny\nnetwork: {layers: 1000000000}", "base: tiny\nnetwork: {layers: 1.0e+300}"),
    *("base: tiny\nnetwork: {d_model: 1000000000000}", "base: tiny\naudio: {sample_rate: 1}"),
    *(_BOMB, _BOMB + "network: *i", _BOMB + "audio: {hop: *i}", _BOMB + "base: *i"),
    *("base: tiny\n" + _BOMB.replace("a:", "data: {stems: *i}\na:"), "a: " + "x" * 1_000_000),
    "base: tiny\nnetwork: {bands: " + "[" * 500 + "]" * 500 + "}",
)
_CARD = {
    "training_data": "songs",
    "recipe": "bsm train",
    "scores": ["4 dB"],
    "limits": "many",
    "licence": "MIT",
}


def config_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A configuration that hardly ever describes a network."""
    match random.randrange(4):
        case 0:
            text = random.choice(_TEXTS)
        case 1:
            text = mutate_bytes(random, corpus.config.read_bytes()).decode("latin-1")
        case _:
            values = yaml.safe_load(corpus.config.read_text())
            if random.random() < 0.5:
                values |= yaml.safe_load((corpus.run / "config.yaml").read_text())
            text = _dump(mutate_value(random, values, random.choice((1, 1, 2, 5))))
    file = put(folder, "config.yaml", text)
    checkpoint = put(folder, "model.safetensors", b"{}")
    arguments = random.choice(
        (
            ["info", file],
            ["info", file, "--json"],
            ["train", "--config", file, "--data", "in", "--out", "out/run"],
            ["import", checkpoint, "--config", file, "-o", "out/model.safetensors"],
        )
    )
    return Case(kind="configuration", arguments=arguments)


def value_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """Hostile values of options, and a hostile model card."""
    del corpus
    if random.random() < 0.4:
        card = _dump(mutate_value(random, dict(_CARD)))
        file = put(folder, "card.yaml", random.choice((card, card, random.choice(_TEXTS))))
        return Case(kind="card", arguments=["export", "in/none.safetensors", "--card", file])
    section = random.choice(("audio", "network", "data", "loss", "training", "", "x", "audio.hop"))
    key = random.choice(("hop", "layers", "bands", "stems", "max_steps", "seed", "", "x.y"))
    text = random.choice((*HOSTILE_TEXTS, *_TEXTS, "1e400", ".nan", "-1", "[1, [2]]", "{a: b}"))
    change = f"{section}.{key}={text}".replace("\0", "")[:100_000]
    options = ["--config", "tiny", "--data", "in", "--out", "out/run"]
    return Case(kind="--set", arguments=["train", *options, f"--set={change}"])


def _dump(value: object) -> str:
    try:
        return yaml.safe_dump(value, sort_keys=False)
    except (RecursionError, ValueError):  # nested too deeply, or too long a number
        return f"network: {nested(300)}"
