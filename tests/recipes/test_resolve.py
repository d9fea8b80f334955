from __future__ import annotations

import pytest

from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import Recipe, Step, parse
from edgelathe.recipes.resolve import check_layers, needs_data, resolve
from edgelathe.recipes.table import STEPS

ARM = Hardware("aarch64", frozenset({"sdot"}), 8)
VNNI = Hardware("x86_64", frozenset({"avx2", "vnni"}), 8)
AVX2 = Hardware("x86_64", frozenset({"avx2"}), 8)


def test_a_resolved_recipe_leaves_nothing_open_and_resolves_to_itself() -> None:
    for hardware in (ARM, VNNI, AVX2):
        for text in ("int8", "fp16", "prune(channels=0.3)+int8"):
            once = resolve(parse(text), "onnx", hardware, text)
            assert resolve(once, "onnx", AVX2, text) == once
            for step in once.steps:
                fields = STEPS[step.use]["onnx"].options.__dataclass_fields__
                assert set(fields) == set(step.options)


def test_int8_folds_first() -> None:
    assert [s.use for s in resolve(parse("int8"), "onnx", ARM, "r").steps] == ["fold", "int8"]
    assert [s.use for s in resolve(parse("fold+int8"), "onnx", ARM, "r").steps] == ["fold", "int8"]


def test_steps_that_correct_come_after_the_one_that_quantizes() -> None:
    steps = resolve(parse("int8+bias-correct+output-affine"), "onnx", ARM, "r").steps
    assert [s.use for s in steps] == ["fold", "int8", "bias-correct", "output-affine"]


def test_features_decide_what_the_kernels_can_take() -> None:
    def int8(hardware: Hardware) -> dict[str, object]:
        return dict(resolve(parse("int8"), "onnx", hardware, "r").steps[-1].options)

    assert int8(ARM)["signed"] is True
    assert int8(VNNI)["reduce"] is False
    assert int8(AVX2)["reduce"] == "auto"  # the kernel adds pairs of products in 16 bits, and saturates


def test_what_the_user_chose_stays() -> None:
    assert resolve(parse("int8(reduce=false)"), "onnx", AVX2, "r").steps[-1].options["reduce"] is False


@pytest.mark.parametrize(
    ("recipe", "format", "says"),
    [
        ("int9", "onnx", "did you mean 'int8'"),
        ("int16x8", "onnx", "not for onnx"),
        ("prune", "tflite", "not for tflite"),
        ("int8(scael=mse)", "onnx", "scael"),
        ("int8+prune", "onnx", "'prune' comes after 'int8'"),
        ("int8+bias-correct+prune", "onnx", "'prune' comes after 'int8'"),
        ("bias-correct", "onnx", "'bias-correct' has no step before it to correct; write int8+bias-correct"),
    ],
)
def test_each_mistake_is_named(recipe: str, format: str, says: str) -> None:
    with pytest.raises(UserError, match="recipe 'x'") as e:
        resolve(parse(recipe), format, ARM, "recipe 'x'")  # type: ignore[arg-type]
    assert says in str(e.value)


def test_overrides_name_layers_that_there_are() -> None:
    recipe = Recipe((Step("int8", {}, {"conv*": {"skip": True}, "fc": {"skip": True}}),))
    check_layers(recipe, ["conv1", "fc"], "r")
    with pytest.raises(UserError, match="did you mean 'fc1'"):
        check_layers(recipe, ["conv1", "fc1"], "r")


def test_override_options_are_checked_like_the_others() -> None:
    with pytest.raises(UserError, match="scael"):
        resolve(Recipe((Step("int8", {}, {"conv1": {"scael": "mse"}}),)), "onnx", ARM, "r")
    with pytest.raises(UserError, match="skip"):
        resolve(Recipe((Step("int8", {}, {"conv1": {"skip": "yes"}}),)), "onnx", ARM, "r")
    kept = resolve(Recipe((Step("int8", {}, {"conv1": {"skip": True}}),)), "onnx", ARM, "r")
    assert kept.steps[-1].layers == {"conv1": {"skip": True}}


def test_steps_that_need_data_say_so() -> None:
    assert needs_data(parse("fold+int8"), "onnx", "r") == "int8"
    assert needs_data(parse("fp16"), "onnx", "r") is None
