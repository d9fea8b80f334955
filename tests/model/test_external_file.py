"""Files that a model names for its weights, below the limit (read) and above it (mapped)."""

from __future__ import annotations

import pytest

from edgelathe.core.errors import UserError
from edgelathe.model import external, io
from support.large_onnx import LIMIT, chain, write


@pytest.fixture(params=[LIMIT, 2**31 - 1], ids=["large", "small"])
def limit(request, monkeypatch):
    monkeypatch.setattr(external, "LARGEST", request.param)


def placed(path, data_type=1, **entries):
    """Write `chain` with another type and other entries for its first weights."""
    import onnx

    write(chain(), path)
    proto = onnx.load(str(path), load_external_data=False)
    given = {e.key: e.value for e in proto.graph.initializer[0].external_data} | entries
    proto.graph.initializer[0].data_type = data_type
    del proto.graph.initializer[0].external_data[:]
    for key, value in given.items():
        proto.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    return path


BAD = {
    "missing": ({"location": "no.bin"}, "lie in no.bin, which is missing; copy it beside m.onnx"),
    "nameless": ({"location": ""}, "outside of the model's folder"),
    "parent": ({"location": "../weights.bin"}, "outside of the model's folder"),
    "inner parent": ({"location": "a/../../weights.bin"}, "outside of the model's folder"),
    "absolute": ({"location": "/etc/hostname"}, "outside of the model's folder"),
    "beyond": ({"offset": "999999"}, "bytes of 1004095; copy it whole"),
    "negative": ({"offset": "-4"}, "at -4, 4096 bytes, where their shape takes 4096"),
    "no number": ({"offset": "two"}, "at two"),
    "too short": ({"length": "100"}, "100 bytes, where their shape takes 4096"),
    "text": ({"data_type": 8}, "weights.bin, which holds no values of type 8"),
    "too long": ({"length": "5000"}, "5000 bytes, where their shape takes 4096"),
}


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("name", BAD)
def test_places_that_hold_no_weights(tmp_path, name):
    entries, words = BAD[name]
    with pytest.raises(UserError) as e:
        io.load(placed(tmp_path / "m.onnx", **entries), large=True)
    assert words in str(e.value)
    assert str(e.value).startswith(f"{tmp_path / 'm.onnx'}: weights 'w0' lie in ")
    assert "\n" not in str(e.value)


@pytest.mark.usefixtures("limit")
def test_a_file_that_was_cut_off(tmp_path):
    path = write(chain(), tmp_path / "m.onnx")
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"'b3' lie in weights\.bin, which has \d+ bytes of \d+; copy it whole"):
        io.load(path, large=True)
    weights.write_bytes(b"")
    with pytest.raises(UserError, match=r"'w0' lie in weights\.bin, which has 0 bytes"):
        io.load(path, large=True)


@pytest.mark.usefixtures("limit")
def test_a_link_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    path = write(chain(), tmp_path / "in" / "m.onnx")
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "in" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(UserError, match="a link to what is outside of the model's folder; copy the file itself"):
        io.load(path, large=True)


@pytest.mark.usefixtures("limit")
def test_weights_without_a_length_take_what_their_shape_takes(tmp_path):
    whole = io.load(write(chain(), tmp_path / "m.onnx"), large=True)
    assert io.load(placed(tmp_path / "m.onnx", length=""), large=True).sha256 == whole.sha256
