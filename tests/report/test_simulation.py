"""A simulation on the terminal."""

from __future__ import annotations

from edgelathe.report import terminal
from support import documents

DOCUMENT = documents.DOCUMENTS["simulate"]


def test_both_metrics_the_answers_and_every_layer():
    shown = terminal.text(terminal.render(DOCUMENT))
    assert (
        shown
        == """\
top-1: float 88.5 %, simulated 88.0 % (n=200; against the float model)
  output: SQNR 23.1 dB, cosine 0.998, MSE 0.00042
  answers: 3 of 200 changed: 2 lost, 1 won
  f(y) - f(z), f = abs: mean 0.001, size 0.01, RMSE 0.02, largest 0.11

op        bits    SQNR      cosine   clipped   overflows   layer
CONV_2D   8       29.6 dB   0.9995   0.02 %    -           conv1
SOFTMAX   float   -         -        -         4           softmax
furthest from float: conv1, 29.6 dB"""
    )


def test_without_labels_only_flips_are_told():
    quiet = {"lost": None, "won": None, "top1_change": None}
    error = DOCUMENT["error"]
    document = {**DOCUMENT, "error": {**error, "classification": {**error["classification"], **quiet}}, "layers": []}
    shown = terminal.text(terminal.render(document))
    assert "answers: 3 of 200 changed\n" in shown
    assert "furthest" not in shown
