"""`in_float=measured` in a recipe."""

from __future__ import annotations

from edgelathe.core.recipe import parse
from edgelathe.recipes.open_choice import asked, filled


def test_recipes_without_the_word_are_left_alone() -> None:
    recipe = parse("int8(in_float=add)+fold")
    assert not asked(recipe)
    assert filled(recipe, "first") == recipe
