from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe.core.errors import UserError
from edgelathe.core.recipe import Recipe, Step, from_toml, parse, to_toml

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.from_regex(r"[a-df-mo-su-z][a-df-mo-su-z0-9-]{0,6}", fullmatch=True),
)
STEPS = st.builds(Step, NAMES, st.dictionaries(NAMES.map(lambda n: n.replace("-", "_")), VALUES, max_size=3))
RECIPES = st.lists(STEPS, min_size=1, max_size=4).map(lambda steps: Recipe(tuple(steps)))


@given(RECIPES)
def test_text_form_round_trips(recipe: Recipe) -> None:
    assert parse(str(recipe)) == recipe


@given(RECIPES)
def test_toml_form_says_the_same_as_text(recipe: Recipe) -> None:
    assert from_toml(to_toml(recipe), "recipe.toml") == recipe


def test_toml_keeps_layers_session_and_holdout() -> None:
    recipe = Recipe(
        (Step("int8", {"scale": "mse"}, {'conv "1"': {"skip": True}, "block*": {"weights": 8}}),),
        session={"runtime": "onnxruntime", "threads": 2, "session.x64quantprecision": "1"},
        holdout={"every": 8, "samples": 100},
    )
    assert from_toml(to_toml(recipe), "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "missing"),
        ("int8(", "int8("),
        ("int8)", "')'"),
        ("int8(scale)", "scale"),
        ("int8 fp16", "'f'"),
        ("int8+", "missing"),
        ("+int8", "missing"),
        ("int8(scale=mse)(x=1)", "'('"),
        ("prune(channels=0.3,channels=0.5)", "twice"),
    ],
)
def test_what_is_no_recipe_is_named_with_its_place(text: str, names: str) -> None:
    with pytest.raises(UserError) as e:
        parse(text)
    assert names in str(e.value)
    assert "step(option=value" in str(e.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("step = 1", "[[step]]"),
        ("", "[[step]]"),
        ('steps = 1\n[[step]]\nuse = "int8"', "steps"),
        ("[[step]]\nscale = 'mse'", "use"),
        ("[[step]]\nuse = 'int8'\nscale = ['a']", "scale"),
        ("[[step]]\nuse = 'int8'\nlayers = 3", "layers"),
        ("session = 1\n[[step]]\nuse = 'int8'", "session"),
        ("not toml", "TOML"),
    ],
)
def test_a_broken_recipe_file_is_named_with_its_key(text: str, names: str) -> None:
    with pytest.raises(UserError) as e:
        from_toml(text, "my.toml")
    assert "my.toml" in str(e.value)
    assert names in str(e.value)


def test_blanks_do_not_matter() -> None:
    assert parse(" prune( channels = 0.3 ) + int8 ") == parse("prune(channels=0.3)+int8")
