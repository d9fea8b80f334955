"""Explanations as people read them."""

from edgelathe.report import terminal
from edgelathe.report.explanation import explained
from support.documents import DOCUMENTS, EXPLAINED


def lines(found):
    return [t.plain for t in explained("int8", found)]


def test_worst_layers_with_causes_and_what_to_try():
    head, worst, *tries = lines(EXPLAINED)
    assert head == "after int8: 9 of 64 answers changed, loss 7.0 ± 0.3 pt, output 12.5 dB"
    assert worst == "  11.2 dB   conv1 · 2.0% of its values clipped · 3 channels became constant"
    assert tries == ["  try int8(scale=minmax) or scale=percentile", "  try skip = true for layer 'conv1'"]


def test_chance_and_outputs_that_are_no_numbers_are_said():
    head = lines({**EXPLAINED, "accuracy": None, "sqnr_db": None, "chance": True})[0]
    assert head == "after int8: 9 of 64 answers changed, output not finite · fell to chance"


def test_more_layers_than_fit_are_counted():
    found = {**EXPLAINED, "layers": [{**EXPLAINED["layers"][0], "sqnr_db": float(db)} for db in range(1, 10)]}
    assert "  6.0 dB or better: 4 more layers" in lines(found)


def test_compress_shows_it():
    assert "after int8: 9 of 64 answers changed" in terminal.text(terminal.render(DOCUMENTS["compress"]))
