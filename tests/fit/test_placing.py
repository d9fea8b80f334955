"""`in_float=measured`: patterns timed on the local device with its real agent; verdicts are never judged here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.integer import placement
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import parse
from edgelathe.device.open import Device
from edgelathe.fit import placing
from edgelathe.fit.placing import Placing, Scene, Timed
from edgelathe.model.external import External
from support.tiny_onnx import Graph, samples

QUICK = replace(placing.JOB, min_ms=20.0, max_ms=60.0)


def scene(device: Device) -> Scene:
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 8))
    y = g.op("Flatten", g.op("GlobalAveragePool", g.conv(x, 8, 8)))
    model = g.build(g.op("Gemm", y, g.weights(8, 5), g.const(np.ones(5, np.float32))))
    hardware = Hardware("aarch64", frozenset({"sdot"}))
    return Scene(device, model, samples(model, 2), hardware, SessionOptions("onnxruntime", "CPUExecutionProvider"))


def test_every_pattern_is_timed_in_both_forms(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "JOB", QUICK)
    said: list[str] = []
    found = placing.measure(scene(device), said.append, lambda what, part: None)
    assert {t.pattern for t in found} >= {"first", "last"}
    assert all(t.ratio > 0 and t.verdict in ("faster", "slower", "same", "undecided") for t in found)
    assert len(said) == len(found)


def test_models_of_2_gb_and_more_are_refused(device: Device) -> None:
    of = scene(device)
    large = replace(of, model=replace(of.model, external=External((memoryview(bytes(8)),))))
    with pytest.raises(UserError, match="in_float=measured: does not take models of 2 GB and more"):
        placing.measure(large, print, lambda what, part: None)


def test_only_what_is_shown_to_be_faster_goes_to_float() -> None:
    timed = [Timed("add", "a", 0.5, 0.4, 0.6, v) for v in ("faster", "same", "slower", "undecided")]
    assert [t.in_float for t in timed] == [True, False, False, False]


def test_the_choice_is_measured_once_and_replaces_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def measure(scene: object, say: object, tick: object) -> list[Timed]:
        calls.append(scene)
        return [Timed("first", "a", 0.5, 0.4, 0.6, "faster"), Timed("add", "b", 2.0, 1.9, 2.1, "slower")]

    monkeypatch.setattr(placing, "measure", measure)
    place = Placing(None, None, print, lambda what, part: None)  # type: ignore[arg-type]
    assert str(place(parse("int8"))) == "int8"
    assert place.chosen is None
    assert not calls
    for _ in range(2):
        assert str(place(parse("prune(channels=0.3)+int8(weights=8,in-float=measured)"))) == (
            "prune(channels=0.3)+int8(weights=8,in_float=first)"
        )
    assert len(calls) == 1
    assert place.chosen == "first"


def test_a_resumed_run_keeps_what_was_measured() -> None:
    place = Placing(None, placement.NONE, print, lambda what, part: None)  # type: ignore[arg-type]
    assert str(place(parse("int8(in_float=measured)"))) == "int8(in_float=none)"
