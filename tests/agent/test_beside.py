"""Models of several files: the agent links what a model's file names by its hash."""

from __future__ import annotations

import numpy as np

from edgelathe.model import external, run
from edgelathe.model import onnx as onnx_model
from support.large_onnx import chain, samples


def test_weights_beside_the_model_are_found_by_their_hash(agent):
    whole = onnx_model.from_proto(chain(), "m")
    proto = chain()
    beside = external.part(proto, "m")
    external.place(proto, beside, external.NAME)
    large = onnx_model.from_proto(proto, "m", beside)
    opened = agent.open(large.manifest, beside=[agent.put(beside[:])], cold=True)
    assert agent.feed(opened["session"], **samples()) == 6
    wanted = run.outputs(whole, samples())[0]
    np.testing.assert_array_equal(agent.infer(opened["session"], 6)[0], wanted)
    missing = agent.refused("open", model=agent.put(large.manifest), beside=["0" * 64])
    assert missing["kind"] == "missing"
