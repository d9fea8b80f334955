from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 8, 6, 3)).astype(np.uint8)
Y = np.arange(12) % 3


def signature(*inputs: TensorInfo, classes: int | None = 3) -> Signature:
    return Signature(inputs, (TensorInfo("out", (None, classes), "float32"),))


IMAGE = signature(TensorInfo("input", (None, 8, 6, 3), "float32"))


def toml(tmp_path, text, name="d.toml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "e.npz", x=X, y=Y, path=np.array(["a"] * 12), objects=np.array([object()]))
    return tmp_path / "e.npz"


def test_npz_casts_stored_integers_unchanged_and_ignores_other_arrays(npz):
    data = dataset.bind(dataset.load(npz), IMAGE)
    assert (data.name, data.metric, len(data)) == (str(npz), "top1", 12)
    assert data.inputs["input"].dtype == np.float32
    np.testing.assert_array_equal(data.inputs["input"], X)
    np.testing.assert_array_equal(data.labels, Y)


def test_npy_is_inputs_without_labels(tmp_path):
    np.save(tmp_path / "x.npy", X)
    data = dataset.bind(dataset.load(tmp_path / "x.npy"), IMAGE)
    assert data.labels is None
    np.testing.assert_array_equal(data.inputs["input"], X)


def test_toml_preprocesses_limits_and_says_which_labels(npz, tmp_path):
    text = 'path = "e.npz"\nlabels = "y"\nlimit = 5\nmetric = "top5"\n'
    text += '[preprocess]\nmean = 127.5\nstd = 127.5\nlayout = "NHWC->NCHW"'
    data = dataset.load(toml(tmp_path, text))
    want = np.ascontiguousarray(
        ((X[:5].astype(np.float32) - np.float32(127.5)) / np.float32(127.5)).transpose(0, 3, 1, 2)
    )
    bound = dataset.bind(data, signature(TensorInfo("a", (1, 3, 8, 6), "float32")))
    np.testing.assert_array_equal(bound.inputs["a"], want)
    np.testing.assert_array_equal(bound.labels, Y[:5])
    assert data.metric == "top5"


def test_a_limit_on_sorted_data_is_noticed(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.zeros((400, 2)), y=np.arange(400) // 40)
    np.savez(tmp_path / "m.npz", x=np.zeros((400, 2)), y=np.arange(400) % 10)
    text = 'path = "{}.npz"\nlabels = "y"\nlimit = 100'
    assert "3 of 10 classes" in dataset.load(toml(tmp_path, text.format("s"))).warnings[0]
    assert dataset.load(toml(tmp_path, text.format("m"))).warnings == ()


def test_toml_without_labels_counts_agreement_and_says_so(npz, tmp_path):
    data = dataset.load(toml(tmp_path, 'path = "e.npz"'))
    assert data.labels is None
    assert any("agreement" in w for w in data.warnings)


def test_several_inputs_by_name_or_mapped(tmp_path):
    a, b = RNG.random((4, 2)), RNG.integers(0, 9, (4, 3))
    np.savez(tmp_path / "named.npz", ids=b, feats=a, y=[0, 1, 2, 0])
    np.savez(tmp_path / "mapped.npz", p=a, q=b, r=RNG.random((9, 9)))
    two = signature(TensorInfo("feats", (None, 2), "float32"), TensorInfo("ids", (None, 3), "int64"))
    named = dataset.bind(dataset.load(tmp_path / "named.npz"), two)
    mapped = dataset.bind(
        dataset.load(
            toml(tmp_path, 'path = "mapped.npz"\ninputs = { feats = "p", ids = "q" }\n[preprocess.feats]\nmean = 1')
        ),
        two,
    )
    assert named.inputs["ids"].dtype == np.int64
    np.testing.assert_array_equal(named.inputs["feats"], a.astype(np.float32))
    np.testing.assert_array_equal(mapped.inputs["feats"], a.astype(np.float32) - 1)
    np.testing.assert_array_equal(mapped.inputs["ids"], b)


def test_folder_of_images_numbers_sorted_classes(tmp_path):
    for i, name in enumerate(["zebra", "ant", "ant", "bee"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[i]).save(tmp_path / "set" / name / f"{i}.png")
    (tmp_path / "set" / ".hidden").mkdir()
    data = dataset.load(tmp_path / "set")
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 2])
    np.testing.assert_array_equal(data.inputs[""], X[[1, 2, 3, 0]])


def test_folders_named_by_numbers_are_those_classes(tmp_path):
    for name in ("0", "2", "10"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(X[0]).save(tmp_path / "set" / name / "i.png")
    assert sorted(dataset.load(tmp_path / "set").labels) == [0, 2, 10]


def test_gray_images_have_one_channel_unless_some_have_colour(tmp_path):
    (tmp_path / "s/a").mkdir(parents=True)
    Image.fromarray(X[0, :, :, 0]).save(tmp_path / "s/a/0.png")
    assert dataset.load(tmp_path / "s").inputs[""].shape == (1, 8, 6, 1)
    Image.fromarray(X[1]).save(tmp_path / "s/a/1.png")
    mixed = dataset.load(tmp_path / "s").inputs[""]
    np.testing.assert_array_equal(mixed[0], np.repeat(X[0, :, :, :1], 3, 2))


@pytest.mark.parametrize("header", ["file,label\n", ""])
def test_csv_of_file_and_label_is_relative_to_itself(tmp_path, header):
    (tmp_path / "pics").mkdir()
    for i in range(3):
        Image.fromarray(X[i]).save(tmp_path / f"pics/{i}.png")
    (tmp_path / "s.csv").write_text(header + "pics/2.png,1\n\npics/0.png , 0\n")
    data = dataset.load(tmp_path / "s.csv")
    np.testing.assert_array_equal(data.labels, [1, 0])
    np.testing.assert_array_equal(data.inputs[""], X[[2, 0]])


def test_csv_of_arrays_with_real_targets(tmp_path):
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", X[i] / 255)
    (tmp_path / "s.csv").write_text("0.npy,0.5\n1.npy,2\n")
    data = dataset.load(toml(tmp_path, 'path = "s.csv"\nmetric = "rmse"'))
    np.testing.assert_array_equal(data.labels, [0.5, 2.0])


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"), [("int8", 1.0, -128), ("uint8", 0.0078431377, 127), ("int16", 0.01, 0)]
)
def test_integer_inputs_take_the_same_values_through_scale_and_zero_point(dtype, scale, zero, monkeypatch):
    monkeypatch.setattr("edgelathe.core.dataset_bind.BLOCK", 300)
    values = (X.astype(np.float32) - np.float32(127.5)) / np.float32(0.7)
    one = signature(TensorInfo("q", (1, 8, 6, 3), dtype, scale, zero))
    got = dataset.bind(dataset.Dataset("d", {"": values}), one).inputs["q"]
    info = np.iinfo(dtype)
    want = np.clip(np.round(values / np.float32(scale)) + zero, info.min, info.max).astype(dtype)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("metric", "labels", "want"),
    [
        ("top1", np.array([0.0, 2.0, 1.0]), [0, 2, 1]),
        ("top1", np.array([[2], [0], [1]]), [2, 0, 1]),
        ("top1", np.eye(3)[[1, 0, 2]], [1, 0, 2]),
        ("auroc", np.array([True, False, True]), [1, 0, 1]),
        ("f1", np.array([[1, 1], [0, 0], [0, 1]]), [[1, 1], [0, 0], [0, 1]]),
        ("mae", np.array([1, 2, 3], np.int8), [1.0, 2.0, 3.0]),
        ("mine.metrics:score", np.array([0.5, -1, 2]), [0.5, -1, 2]),
    ],
)
def test_labels_become_what_the_metric_wants(tmp_path, metric, labels, want):
    np.savez(tmp_path / "e.npz", x=np.zeros((3, 2)), y=labels)
    data = dataset.load(toml(tmp_path, f'path = "e.npz"\nlabels = "y"\nmetric = "{metric}"'))
    np.testing.assert_array_equal(data.labels, want)


def test_take_keeps_order_and_labels():
    data = dataset.take(dataset.Dataset("d", {"a": X, "b": X[:, 0]}, Y), [3, 1])
    np.testing.assert_array_equal(data.inputs["b"], X[[3, 1], 0])
    np.testing.assert_array_equal(data.labels, Y[[3, 1]])


@pytest.mark.parametrize(
    ("indices", "copied"), [([0, 1, 2, 3], False), ([1, 2], False), ([0, 2], True), ([-1, 0], True)]
)
def test_samples_that_follow_one_another_are_not_copied(indices, copied):
    data = dataset.take(dataset.Dataset("d", {"a": X}, Y), indices)
    np.testing.assert_array_equal(data.inputs["a"], X[indices])
    np.testing.assert_array_equal(data.labels, Y[indices])
    assert np.shares_memory(data.inputs["a"], X) != copied


@pytest.mark.parametrize(("classes", "limit"), [(3, 3), (1, 2)])
def test_labels_out_of_the_models_classes(classes, limit):
    data = dataset.Dataset("e.npz", {"": np.zeros((3, 2), np.float32)}, np.array([0, 1, 5]))
    with pytest.raises(UserError, match=f"e.npz: label of sample 2 is 5, .*0 to {limit - 1}"):
        dataset.check_labels(data, classes)
    dataset.check_labels(data, None)
    dataset.check_labels(dataset.Dataset("e", data.inputs, data.labels, "mae"), classes)


def test_classes_are_all_values_of_the_first_output():
    data = dataset.Dataset("e.npz", {"": X}, Y)
    inputs = IMAGE.inputs
    for shape in [(None, 3, 1, 1), (None, 1, 3), (None, None), (1, 7)]:
        dataset.bind(data, Signature(inputs, (TensorInfo("out", shape, "float32"),)))
    with pytest.raises(UserError, match="0 to 1"):
        dataset.bind(data, Signature(inputs, (TensorInfo("out", (None, 2, 1, 1), "float32"),)))


def test_real_data_bind_to_real_models(data_dir):
    from edgelathe.model import io

    model = io.load(data_dir / "cifar10_resnet8/model_int8_reference.tflite")
    data = dataset.load(data_dir / "cifar10_resnet8/eval.npz")
    bound = dataset.bind(data, model.signature)
    want = (data.inputs["x"].astype(np.int16) - 128).astype(np.int8)
    np.testing.assert_array_equal(bound.inputs[model.signature.inputs[0].name], want)
    assert not bound.warnings
