"""Every kind of bad data is one line that names the file, what is wrong and the mend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo

X = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3)).astype(np.uint8)
Y = np.arange(20) % 3
NAN = X.astype(np.float32)
NAN[3, 0, 0, 0] = np.nan
MODEL = Signature((TensorInfo("input", (None, 8, 6, 3), "float32"),), (TensorInfo("out", (None, 3), "float32"),))
TOML = 'path = "good.npz"\nlabels = "y"\n'

NPZ = {
    "shape": ({"x": np.zeros((20, 28, 28, 1)), "y": Y}, ["28x28x1", "'input'", "8x6x3", "resize"]),
    "flat": ({"x": X[..., 0], "y": Y}, ["8x6", "8x6x3"]),
    "nchw": ({"x": X.transpose(0, 3, 1, 2), "y": Y}, ["3x8x6", 'layout = "NCHW->NHWC"']),
    "squeezed": ({"x": X[:, None], "y": Y}, ["1x8x6x3", "reshape"]),
    "short": ({"x": X, "y": Y[:11]}, ["20 samples", "11 labels"]),
    "nan": ({"x": NAN, "y": Y}, ["x holds NaN", "sample 3"]),
    "label": ({"x": X, "y": Y + 100_000}, ["sample 0 is 100000", "0 to 2"]),
    "negative": ({"x": X, "y": Y - 1}, ["label of sample 0 is -1", "from 0"]),
    "fractions": ({"x": X, "y": Y + 0.5}, ["0.5", "metric top1", 'metric = "mae"']),
    "nanlabel": ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, ["label of sample 1 is NaN"]),
    "textlabel": ({"x": X, "y": Y.astype(str)}, ["labels are text", "number the classes"]),
    "dense": ({"x": X, "y": np.zeros((20, 8, 6), int)}, ["20x8x6", "one class a sample"]),
    "none": ({"x": X[:0], "y": Y[:0]}, ["no sample"]),
    "object": ({"x": np.array([object()] * 4), "y": Y[:4]}, ["'x'", "pickle", "np.savez"]),
    "noobject": ({"a": np.array([object()] * 4)}, ["pickle"]),
    "objectlabel": ({"x": X, "y": np.array([object()] * 20)}, ["'y'", "pickle"]),
    "text": ({"x": np.array(["a"] * 20)}, ["x holds <U1"]),
    "scalar": ({"x": np.float32(3)}, ["single number"]),
    "other": ({"images": X, "y": Y}, ["'input'", "images", "name it x"]),
    "nothing": ({"y": Y}, ["no array 'x'"]),
}


@pytest.mark.parametrize("name", NPZ)
def test_npz(tmp_path, name):
    arrays, words = NPZ[name]
    np.savez(tmp_path / f"{name}.npz", **arrays)
    refused(tmp_path / f"{name}.npz", f"{name}.npz", *words)


TABLE = {
    "pth": ("pth = 1", ["pth", "did you mean 'path'"]),
    "nopath": ('labels = "y"', ["path", "missing"]),
    "syntax": ("path = ", ["not TOML"]),
    "gone": ('path = "gone.npz"', ["gone.npz", "no such file"]),
    "chain": ('path = "chain.toml"', ["description too"]),
    "limit": (TOML + "limit = 0", ["limit", "whole number"]),
    "limittype": (TOML + "limit = true", ["limit"]),
    "metric": (TOML + 'metric = "topp1"', ["metric", "did you mean 'top1'", "module:function"]),
    "labels": ('path = "good.npz"\nlabels = "z"', ["'z'", "good.npz"]),
    "labelstype": ('path = "good.npz"\nlabels = 3', ["labels", 'labels = "y"']),
    "inputs": ('path = "good.npz"\ninputs = { input = "X" }', ["'X'", "good.npz"]),
    "inputstype": ('path = "good.npz"\ninputs = "x"', ["inputs", "{ input"]),
    "input": ('path = "good.npz"\ninputs = { inptu = "x" }', ["'input'", "inptu"]),
    "preprocess": (TOML + "preprocess = 3", ["preprocess", "[preprocess]"]),
    "key": (TOML + "[preprocess]\nstdd = 3", ["preprocess.stdd", "'std'"]),
    "who": (TOML + "[preprocess.y]\nstd = 3", ["preprocess.y", "no such input"]),
    "float": ('path = "good.npz"\nlabels = "z"\nmetric = "mae"', ["'z'"]),
}


@pytest.mark.parametrize("name", TABLE)
def test_toml(tmp_path, name):
    text, words = TABLE[name]
    np.savez(tmp_path / "good.npz", x=X, y=Y)
    (tmp_path / f"{name}.toml").write_text(text)
    refused(tmp_path / f"{name}.toml", *words)


FILES = {
    "text.npz": (b"not an archive", ["not an .npz"]),
    "empty.npz": (b"", ["not an .npz"]),
    "text.npy": (b"not an array", ["not an .npy"]),
    "empty.npy": (b"", ["not an .npy"]),
    "data.bin": (b"123", ["not a dataset", ".npz", ".toml"]),
    "empty.csv": (b"", ["no sample"]),
    "binary.csv": (bytes(range(128, 256)), ["comma-separated"]),
    "gone.csv": (b"file,label\nno.png,1\nnone.png,2\n", ["line 2", "no.png"]),
    "columns.csv": (b"good.png,1\ngood.png\n", ["line 2", "1 columns"]),
    "label.csv": (b"good.png,cat\n", ["line 1", "'cat'", "from 0"]),
    "kind.csv": (b"kind.csv,1\n", ["line 1", "no image"]),
    "broken.csv": (b"broken.png,1\n", ["broken.png", "cut off"]),
    "fake.csv": (b"fake.png,1\n", ["fake.png", "not an image"]),
    "deep.csv": (b"deep.png,1\n", ["deep.png", "8 bits"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    content, words = FILES[name]
    Image.fromarray(X[0]).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:120])
    (tmp_path / "fake.png").write_bytes(b"no image")
    Image.fromarray(X[0, :, :, 0].astype(np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)


def test_cut_archives_and_pickled_arrays(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.random.default_rng(0).random((20, 100)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.npz", "cut.npz", "cut off")
    middle = len(whole) // 2
    (tmp_path / "flipped.npz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    refused(tmp_path / "flipped.npz", "flipped.npz", "damaged")
    np.save(tmp_path / "o.npy", np.array([object()]), allow_pickle=True)
    refused(tmp_path / "o.npy", "o.npy", "pickle")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:500])
    refused(tmp_path / "x.npy", "x.npy", "cut off")


def test_folders(tmp_path):
    (tmp_path / "set/a").mkdir(parents=True)
    refused(tmp_path / "set", "set/a", "without an image")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "none", "folder per class")
    refused(tmp_path / "nowhere", "nowhere", "no such file")
    Image.fromarray(X[0]).save(tmp_path / "set/a/0.png")
    Image.fromarray(X[0, :4]).save(tmp_path / "set/a/1.png")
    refused(tmp_path / "set", "sample 1 is 4x6x3", "resize")


INPUTS = {
    "ids": (TensorInfo("ids", (None, 2), "int64"), np.array([[0.5, 1]]), ["fractions", "'ids'", "int64"]),
    "range": (TensorInfo("ids", (None, 2), "int8"), np.array([[300, 1]]), ["300", "int8"]),
    "half": (TensorInfo("x", (None, 2), "float16"), np.array([[1, 1], [1e6, 1]], np.float32), ["sample 1", "float16"]),
    "str": (TensorInfo("x", (None, 2), "str"), np.zeros((1, 2)), ["'x'", "text", "numbers"]),
    "sequence": (TensorInfo("x", (), "sequence"), np.zeros((1, 2)), ["'x'", "sequence", "numbers"]),
    "no samples": (TensorInfo("x", (2,), "float32"), np.zeros((1, 2)), ["'x'", "one sample (2)", "batch axis"]),
    "scalar": (TensorInfo("x", (), "float32"), np.zeros(3), ["'x'", "single number", "batch axis"]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_values_that_the_input_does_not_hold(name):
    info, values, words = INPUTS[name]
    with pytest.raises(UserError) as e:
        dataset.bind(dataset.Dataset("d.npz", {"": values}), Signature((info,), ()), "m.onnx")
    one_line(e.value, *words)


def test_inputs_of_unequal_length_or_missing():
    two = Signature((TensorInfo("a", (None, 2), "float32"), TensorInfo("b", (None, 2), "float32")), ())
    with pytest.raises(UserError) as e:
        dataset.bind(dataset.Dataset("d.npz", {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}), two)
    one_line(e.value, "'a' has 3", "'b' has 4")
    with pytest.raises(UserError) as e:
        dataset.bind(dataset.Dataset("d.npz", {"a": np.zeros((3, 2)), "x": np.zeros((4, 2))}), two)
    one_line(e.value, "'b'", "arrays: a, x")


def refused(path, *words):
    with pytest.raises(UserError) as e:
        dataset.bind(dataset.load(path), MODEL, "m.onnx")
    one_line(e.value, *words)


def one_line(error, *words):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    assert error.mend
    missing = [w for w in words if w not in text]
    assert not missing, f"{missing} not in: {text}"
