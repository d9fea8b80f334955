"""Sensitivity as people read it."""

import copy

from edgelathe.report import sensitivity, terminal
from support.documents import DOCUMENTS

DOCUMENT = DOCUMENTS["sensitivity"]


def test_a_row_a_layer_and_a_line_a_width():
    text = terminal.text(terminal.render(DOCUMENT))
    assert "45.0" in text
    assert "4.5 pt" in text
    assert "2.0 %" in text
    assert (
        "4 bits: all layers lose 5.0 ± 0.3 pt (9.0 dB, weights 17.0 kB); with conv1 <first> in float lose 1.0" in text
    )
    assert "1.08 kB more weights and 2.0 % of the MACs in float" in text
    assert "up: left out, its weights are computed by the model" in text


def test_without_labels_it_says_so():
    assert "disagreement with the float model" in sensitivity.head({**DOCUMENT, "labels": False})


def test_a_model_of_nan_is_said_to_be_one():
    document = copy.deepcopy(DOCUMENT)
    document["layers"][0]["widths"][1]["accuracy"] = None
    document["keep"][0]["all"]["accuracy"] = None
    text = terminal.text(terminal.render(document))
    assert "NaN" in text
    assert "all layers give NaN" in text


def test_the_plot_places_what_it_shows():
    left, right = sensitivity.across(0, 50), sensitivity.across(50, 50)
    assert sensitivity.across(-80, 50) == left
    assert sensitivity.across(200, 50) == right
    eight, four = sensitivity.points(DOCUMENT)
    assert left < four.x < eight.x < right
    assert eight.y == four.y
    assert eight.sign != four.sign


def test_the_page_escapes_names():
    page = sensitivity.html(DOCUMENT)
    assert "conv1 &lt;first&gt;" in page
    assert "<first>" not in page
