from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgelathe.compress.types import option
from edgelathe.core.errors import UserError
from edgelathe.recipes import options


@dataclass(frozen=True)
class Options:
    scale: str = option("mse", "how the scale is chosen", choices=("mse", "minmax"))
    share: float = option(0.3, "what goes", low=0, high=0.95)
    signed: bool | None = option(None, "by hardware")
    bits: int = option(8, "bits", choices=(4, 8))


def test_written_options_are_what_build_takes() -> None:
    made = options.build(Options, {"share": 0.5, "signed": True}, "r")
    assert options.build(Options, options.written(made), "r") == made
    assert options.written(made, defaults=False) == {"share": 0.5, "signed": True}


def test_a_whole_number_serves_as_a_number() -> None:
    assert options.build(Options, {"share": 0}, "r").share == 0.0


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"scael": "mse"}, "did you mean 'scale'"),
        ({"scale": "msee"}, "did you mean 'mse'"),
        ({"scale": 3}, "3"),
        ({"share": 1.5}, "0 to 0.95"),
        ({"share": "much"}, "a number"),
        ({"share": float("nan")}, "finite"),
        ({"share": True}, "a number"),
        ({"signed": "yes"}, "true or false"),
        ({"bits": 5}, "'5' is no choice"),
        ({"bits": 8.0}, "8.0"),
    ],
)
def test_each_mistake_names_option_and_mend(written: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as e:
        options.build(Options, written, "recipe 'x'")
    assert says in str(e.value)
    assert "recipe 'x'" in str(e.value)
    assert next(iter(written)) in str(e.value)


def test_open_choices_are_said_to_be_open() -> None:
    rows = {name: default for name, default, _ in options.describe(Options)}
    assert rows["signed"] == "open"
    assert rows["scale"] == "mse"
