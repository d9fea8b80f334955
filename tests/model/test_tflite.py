"""TFLite files are read without trust: whatever is broken is found before an interpreter sees it."""

from __future__ import annotations

import random

import pytest

from edgelathe.model import tflite
from edgelathe.model.flatbuffer import FormatError
from edgelathe.model.graph import layers
from edgelathe.model.io import from_bytes


@pytest.fixture(scope="module")
def files(data_dir):
    return [(data_dir / "cifar10_resnet8" / n).read_bytes() for n in ("model.tflite", "model_int8_reference.tflite")]


def test_what_a_real_file_holds(files):
    main = tflite.parse(files[1]).main
    first = main.operators[0]
    assert [o.op for o in main.operators].count("CONV_2D") == 9
    weights = main.tensors[first.inputs[1]]
    assert (weights.shape, weights.dtype, weights.nbytes, weights.axis) == ((16, 3, 3, 3), "int8", 432, 0)
    assert len(weights.scales) == 16
    bias = main.tensors[first.inputs[2]]
    assert (bias.dtype, bias.elements, bias.constant) == ("int32", 16, True)


def test_every_prefix_is_broken(files):
    for data in files:
        for cut in [*range(8, 400, 7), *range(400, len(data), 9973), len(data) - 64]:
            with pytest.raises(FormatError):
                tflite.parse(data[:cut])


@pytest.mark.parametrize("seed", range(150))
def test_changed_bytes_give_an_answer_or_a_format_error(files, seed):
    chance = random.Random(seed)
    data = bytearray(files[seed % 2])
    for _ in range(chance.choice([1, 5, 50])):
        near = chance.choice(
            [chance.randrange(len(data)), chance.randrange(2000), len(data) - 1 - chance.randrange(20000)]
        )
        data[near] = chance.randrange(256)
    try:
        parsed = tflite.parse(bytes(data))
    except FormatError as e:
        assert str(e)  # noqa: PT017  # the other outcome is as good
    else:
        tflite.signature(parsed)
        layers(from_bytes(bytes(data), "tflite", "m"))
