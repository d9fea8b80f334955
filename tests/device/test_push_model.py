"""A model whose weights lie in a file of their own, on a device: local and over ssh."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.device import SessionOptions
from edgelathe.device.open import open_device
from edgelathe.model import run
from support.large_onnx import chain, load, samples, write

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")


@pytest.fixture(params=["local", "ssh"])
def target(request):
    return request.getfixturevalue({"local": "local", "ssh": "board"}[request.param])


def test_a_model_with_external_weights_runs_there(target, tmp_path, monkeypatch):
    large = load(write(chain(), tmp_path / "m.onnx"), monkeypatch)
    assert large.external is not None
    with open_device(target) as device:
        with device.open_session(large, CPU) as session:
            session.feed(samples())
            (got,) = session.infer(0, 6)
        np.testing.assert_array_equal(got, run.outputs(large, samples())[0])
        sent = device.client.sent_bytes
        device.push_model(large)
        assert device.client.sent_bytes == sent
