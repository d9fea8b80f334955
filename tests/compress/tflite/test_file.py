from __future__ import annotations

import numpy as np
import pytest

from edgelathe.compress.tflite.file import File
from edgelathe.model import io
from edgelathe.model import tflite as reader
from support.tiny_tflite import DEFAULT, Net, T, answers


@pytest.fixture
def chain():
    """Two dense layers over packed 4-bit weights and float ones, which share one bias buffer's values."""
    x, h, y = (T(n, (1, 3), "float32") for n in "xhy")
    one = T("one", dtype="float32", values=np.eye(3, dtype=np.float32) * 2)
    two = T("two", dtype="float32", values=np.eye(3, dtype=np.float32) * 3)
    net = Net()
    net.op("FULLY_CONNECTED", [x, one, None], [h], table="FullyConnectedOptions")
    net.op("FULLY_CONNECTED", [h, two, None], [y], table="FullyConnectedOptions")
    return net.build([x], [y])


def test_a_stretch_holds_its_own_constants_only(chain):
    file = File(chain.data)
    names = {t.name: i for i, t in enumerate(reader.parse(chain.data).main.tensors)}
    part = io.from_bytes(file.part([1], [names["h"]], [names["y"]]), "tflite", "part")
    sample = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(answers(part, {"h": sample}, DEFAULT)[0], sample * 3)
    kept = {t.name for t in reader.parse(part.data).main.tensors if t.constant}
    assert kept == {"two"}
    np.testing.assert_array_equal(
        answers(io.from_bytes(file.data(), "tflite", "w"), {"x": sample}, DEFAULT)[0], sample * 6
    )


@pytest.mark.parametrize("size", [6, 7])
def test_packed_halves_are_read_as_they_were_written(size):
    values = np.arange(-3, size - 3, dtype=np.int8).reshape(1, size)
    x, y = T("x", (1, size), "int8", 0.1), T("y", (1, 1), "int8", 0.1)
    net = Net()
    net.op(
        "FULLY_CONNECTED", [x, T("w", dtype="int4", scale=0.5, values=values), None], [y], table="FullyConnectedOptions"
    )
    file = File(net.build([x], [y]).data)
    weight = next(i for i, t in enumerate(file.graph.tensors) if t.name == b"w")
    np.testing.assert_array_equal(file.constant(weight), values)
    file.set_constant(weight, values[:, ::-1])
    again = File(file.data())
    np.testing.assert_array_equal(again.constant(weight), values[:, ::-1])


def test_a_constant_that_others_share_is_changed_for_one_only(chain):
    file = File(chain.data)
    one, two = (next(i for i, t in enumerate(file.graph.tensors) if t.name == n) for n in (b"one", b"two"))
    file.graph.tensors[two].buffer = file.graph.tensors[one].buffer
    file.set_constant(two, np.full((3, 3), 7, np.float32))
    again = File(file.data())
    assert again.constant(two).max() == 7
    assert again.constant(one).max() == 2
