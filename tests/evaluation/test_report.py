"""The HTML report is self-contained and correct."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from known_results import evaluation, minute, region, result
from small_engines import FunctionEngine, random_mask, real_mask
from voiced_songs import RATE, model_of, tracks_of, voice, write_song

from bsmamba2.evaluation.charts import round_ticks, value_range
from bsmamba2.evaluation.evaluate import (
    Extreme,
    ModelResults,
    Settings,
    evaluate,
    picture_extremes,
)
from bsmamba2.evaluation.report import render_report, write_report
from bsmamba2.evaluation.results import ResultStore
from bsmamba2.runtime.audio.pictures import COLUMNS, ROWS, draw_spectrogram
from bsmamba2.runtime.separation.separator import Separator

VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Checks that elements are nested correctly; collects texts and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def pictures() -> list[Extreme]:
    picture = np.zeros((ROWS, COLUMNS), np.uint8)
    names = {"mixture": picture, "vocals, reference": picture}
    return [Extreme(title="Best minute", track="a", minute=minute(60, 60, 3), pictures=names)]


def full_page(names: tuple[str, ...] = ("m.onnx", "other.onnx")) -> str:
    results = [
        result("one", 1.5, math.nan, onsets=(region(0, 3, 2.0),)),
        result("<b>R&B</b>", -3.25, 2, leakage=-50.5),
    ]
    return render_report(evaluation(results, names), pictures())


def test_the_page_loads_nothing():
    text = full_page()
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("'none'", ""))
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert loads
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert not {"link", "iframe", "object"} & set(page.tags)
    policy = next(value for _, value in page.attributes if "default-src" in value)
    assert "default-src 'none'" in policy


def test_names_are_text_and_never_markup():
    page = Page(full_page(("<i>.onnx", '"quoted".onnx')))
    assert "b" not in page.tags
    assert page.texts.count('"quoted".onnx') == page.texts.count("<i>.onnx") > 3
    assert "<b>R&B</b>" in page.texts
    assert any("2 tracks (1 left out: <b>notes</b> (no audio files))" in t for t in page.texts)


@pytest.mark.parametrize("models", [1, 2, 7])
def test_any_number_of_models_is_shown_side_by_side(models: int):
    page = Page(full_page(tuple(f"{k}.onnx" for k in range(models))))
    assert page.tags.count("svg") == 6
    assert len({page.texts.count(f"{k}.onnx") for k in range(models)}) == 1


def test_numbers_of_a_track_are_in_its_row():
    text = full_page(("m.onnx",))
    row = re.search(r"<tr><td data-value=\"&lt;b.*?</tr>", text)
    assert row
    values = re.findall(r'data-value="([^"]*)"', row[0])[1:]
    assert [float(value) for value in values] == [
        10.5, -3.25, 2, -3.25, 2, -50.5, -2, -1, -2, -1, -30.5,
    ]  # fmt: skip
    assert "\N{MINUS SIGN}3.25" in row[0]

    # Undefined numbers are dashes, and sort last.
    assert '<td data-value="">\N{EN DASH}</td>' in text
    assert "nan" not in re.sub(r"base64,[^\"]*|isNaN", "", text)


def test_one_page_is_written_whole(tmp_path: Path):
    write_report(tmp_path / "new" / "report.html", evaluation([result()]), [])
    assert Page((tmp_path / "new" / "report.html").read_text("utf-8"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


# --- pictures ---


@pytest.mark.parametrize("overlap_s", [0, 0.25, 0.5])
def test_pictures_show_the_audio_that_was_measured(tmp_path: Path, overlap_s: float):
    song = write_song(tmp_path, "song", voice(7.3, [(0, 7.3)]))
    part = minute(2.5, 2, 0)  # not where a chunk begins or ends
    found = result("song", minutes=(part,))
    model = model_of(random_mask(0.5))
    models = [ModelResults(model=model, tracks=[found], by_length={})]
    settings = Settings(overlap_s=overlap_s)
    store = ResultStore(tmp_path / "results")
    (shown,) = picture_extremes(models, tracks_of(tmp_path), settings, store)
    engine = FunctionEngine(random_mask(0.5))
    stems = Separator(engine, overlap_s=overlap_s).separate(song["mixture"], RATE)
    inside = np.s_[:, round(2.5 * RATE) : round(4.5 * RATE)]
    expected = [song["mixture"], song["vocals"], stems["vocals"]]
    for picture, signal in zip(shown.pictures.values(), expected, strict=True):
        wanted = draw_spectrogram(signal[inside].astype(np.float32), RATE)
        assert np.abs(picture.astype(int) - wanted).max() <= 1
    calls = len(model.engine.shapes)
    picture_extremes(models, tracks_of(tmp_path), settings, store)
    assert len(model.engine.shapes) == calls  # kept


def test_short_songs_have_one_minute(tmp_path: Path):
    write_song(tmp_path, "song", voice(1.5, [(0, 1.5)]))
    settings, store = Settings(), ResultStore(tmp_path / "results")
    results, _ = evaluate([model_of(real_mask(1))], tracks_of(tmp_path), settings, store)
    (only,) = results[0].tracks[0].minutes
    assert (only.start_s, only.duration_s) == (0, 1.5)
    assert only.sdr == pytest.approx(results[0].tracks[0].stems["vocals"].usdr)


# --- axes ---


@pytest.mark.parametrize(("low", "high", "ticks"), [
    (-3, 9, [-2, 0, 2, 4, 6, 8]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (-40, 40, [-40, -20, 0, 20, 40]),
])  # fmt: skip
def test_ticks_are_round_numbers_within(low: float, high: float, ticks: list[float]):
    assert round_ticks(low, high) == pytest.approx(ticks)


def test_a_range_holds_all_finite_values():
    low, high = value_range([1, 5, math.nan, math.inf])
    assert low < 1
    assert 5 < high < 7
    assert value_range([math.nan]) == (-1, 1)
