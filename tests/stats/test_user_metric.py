import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.stats.metrics import chance, compare_accuracy, evaluate, load_metric

SOURCE = """
import numpy as np

def near(outputs, labels):
    return np.mean(np.abs(outputs[:, 0] - labels) < 0.5)

def far(outputs, labels):
    return float(np.abs(outputs[:, 0] - labels).max())
far.better = "lower"

def odd(outputs, labels): return 1
odd.better = "sideways"
def text(outputs, labels): return "good"
def nothing(outputs, labels): return None
def nan(outputs, labels): return float("nan")
def fails(outputs, labels): raise KeyError("depth\\nmap")
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_lathe_metric.py").write_text(SOURCE)
    (tmp_path / "my_broken_metric.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TARGETS = np.arange(40.0)
OUTPUTS = (TARGETS + np.where(np.arange(40) % 4 == 0, 0.9, 0.1))[:, None]


def test_a_function_of_the_current_folder_is_a_metric(folder):
    metric = load_metric("my_lathe_metric:near")
    accuracy = evaluate(metric, OUTPUTS, TARGETS)
    assert (accuracy.metric, accuracy.value, accuracy.n) == ("my_lathe_metric:near", 0.75, 40)
    assert 0.5 < accuracy.low < 0.75 < accuracy.high < 0.95
    compared, _, drop = compare_accuracy(metric, OUTPUTS, OUTPUTS + 0.45, TARGETS)
    assert (compared.value, compared.drop) == (0, 0.75)
    assert drop.lower > 0.5
    assert chance(metric, TARGETS, 1) is None


def test_lower_can_be_better(folder):
    metric = load_metric("my_lathe_metric:far")
    _, _, drop = compare_accuracy(metric, OUTPUTS, OUTPUTS + 1, TARGETS)
    assert (metric.better, drop.value) == ("lower", pytest.approx(1))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_here:f", ["cannot be imported", "no_such_module_here"]),
        ("my_broken_metric:f", ["cannot be imported", "ZeroDivisionError"]),
        ("my_lathe_metric:naer", ["has no function 'naer'"]),
        ("my_lathe_metric:number", ["has no function 'number'"]),
        ("my_lathe_metric:odd", ["sideways"]),
        (":f", ["cannot be imported"]),
        ("top2", ["no such metric", "did you mean"]),
    ],
)
def test_what_is_no_metric_is_named(folder, name, words):
    with pytest.raises(UserError) as caught:
        load_metric(name)
    for word in [f"metric '{name}'", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["text", "nothing", "nan", "fails"])
def test_a_function_without_a_number_is_the_users_error(folder, name):
    metric = load_metric(f"my_lathe_metric:{name}")
    with pytest.raises(UserError, match=f"my_lathe_metric:{name}.*number") as caught:
        evaluate(metric, OUTPUTS, TARGETS)
    assert "\n" not in str(caught.value)
