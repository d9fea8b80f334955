import pytest

from edgelathe.core.duration import milliseconds
from edgelathe.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "ms"), [("33ms", 33), ("10min", 600_000), ("1.5 s", 1500), ("250us", 0.25), ("1h", 3.6e6), ("1e2ms", 100)]
)
def test_durations_have_units(text, ms):
    assert milliseconds(text, "--period") == pytest.approx(ms)


def test_a_bare_number_needs_a_unit_that_is_agreed_on():
    assert milliseconds("2", "--min-time", bare="s") == 2000
    with pytest.raises(UserError, match=r"--period: '33' has no unit; write a number and a unit"):
        milliseconds("33", "--period")


@pytest.mark.parametrize("text", ["", "ten minutes", "5 parsecs", "-3ms", "0s", "inf s", "nan", "1e400s", "3ms 4"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UserError, match="--period"):
        milliseconds(text, "--period", bare="s")


def test_zero_where_it_means_never():
    assert milliseconds("0", "--cool-down", bare="s", zero=True) == 0
