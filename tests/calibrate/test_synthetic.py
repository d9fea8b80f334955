import numpy as np
import pytest

from edgelathe.calibrate import synthetic
from edgelathe.core.errors import UserError
from edgelathe.model import io, run
from support.tiny_onnx import Graph


def net(mean, variance):
    """A convolution before a BatchNormalization that stores this."""
    g = Graph()
    y = g.conv("x", 3, 6)
    stored = (np.ones(6), np.zeros(6), np.broadcast_to(mean, 6), np.broadcast_to(variance, 6))
    y = g.op("BatchNormalization", y, *(g.const(a.astype(np.float32)) for a in stored))
    return g.build(g.op("Relu", y), shape=("n", 3, 16, 16))


def scenes(seed, count=64):
    return synthetic._scenes((16, 16, 3), False, count, np.random.default_rng(seed))


def trained_on(images):
    """The net with the statistics that it has on these images."""
    out = run.outputs(net(1e4, 1.0), {"x": images})[0]
    assert not out.any()
    raw = run.outputs(net(-1e4, 1.0), {"x": images})[0].astype(np.float64) * np.sqrt(1 + 1e-5) - 1e4
    return net(raw.mean(axis=(0, 2, 3)), raw.var(axis=(0, 2, 3)))


def test_images_that_match_batch_norm_are_nearer_to_it_than_any_images():
    dark = np.stack(sorted(scenes(5), key=np.mean)[:16])
    model = trained_on(dark)
    made = synthetic.make(model, declared=(0.0, 1.0), count=32)
    assert "match 1 BatchNormalization layers, input 0 to 1 as declared" in made.how
    norms = synthetic._norms(model)

    def distance(images):
        return float(np.square(synthetic._moments(model, norms, images).mean(0)).sum())

    assert distance(made.inputs["x"]) < 0.3 * distance(scenes(1))
    assert abs(made.inputs["x"].mean() - dark.mean()) < 0.5 * abs(scenes(1).mean() - dark.mean())


def test_the_same_model_gives_the_same_images_in_the_range_declared():
    model = net(0.0, 1.0)
    first, again = (synthetic.make(model, declared=(-1.0, 1.0), count=8).inputs["x"] for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (8, 3, 16, 16)
    assert -1 <= first.min() < first.max() <= 1


@pytest.mark.parametrize(("low", "high"), synthetic.RANGES)
def test_the_input_range_is_guessed_from_the_stored_statistics(low, high):
    model = trained_on(scenes(5) * np.float32(high - low) + np.float32(low))
    assert f"input {low:g} to {high:g} guessed" in synthetic.make(model, count=8).how


def test_it_is_said_that_images_are_made_up():
    made = synthetic.make(net(0.0, 1.0), count=4)
    assert made.name == "synthetic"
    assert "at risk" in made.warnings[0]
    assert made.how in made.warnings[0]


def test_dead_channels_of_a_batch_norm_make_no_nan():
    model = net(0.0, 0.0)
    assert np.isfinite(synthetic.make(model, count=4).inputs["x"]).all()


@pytest.mark.parametrize("shape", [("n", 10), ("n", 5, 8, 8)])
def test_what_is_no_image_is_refused(shape):
    g = Graph()
    model = g.build(g.op("Relu", "x"), shape=shape)
    with pytest.raises(UserError, match="--data"):
        synthetic.make(model)


def test_a_folded_classifier_gives_images_of_several_classes_in_its_own_range(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    made = synthetic.make(model, count=32)
    assert "input 0 to 255 guessed" in made.how
    answers = run.outputs(model, made.inputs)[0].argmax(1)
    assert len(set(answers.tolist())) >= 5
