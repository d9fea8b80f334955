from __future__ import annotations

from pathlib import Path

import pytest

from edgelathe.core.errors import UserError
from edgelathe.fit import job as jobs
from edgelathe.fit.job import Job

FILE = """
model = "models/a.onnx"
data = "eval.toml"
budget = ["size<=0.5x", "accuracy.drop<=1%"]
recipe = ["int8", "mine.toml"]
profile = "board.toml"
max-trials = 3
out = "out"
"""


def test_a_file_says_what_the_command_line_would(tmp_path: Path) -> None:
    file = tmp_path / "fit.toml"
    file.write_text(FILE)
    job = jobs.make(jobs.read(file))
    assert job.model == str(tmp_path / "models" / "a.onnx")
    assert job.recipe == ("int8", str(tmp_path / "mine.toml"))
    assert job.profile == str(tmp_path / "board.toml")
    assert job.max_trials == 3


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fit.toml"
    file.write_text(FILE)
    given = jobs.absolute({"out": "elsewhere", "device": "cam", "calib": None}, Path("/here"))
    job = jobs.make({**jobs.read(file), **given})
    assert (job.out, job.device, job.calib) == ("/here/elsewhere", "cam", None)


def test_a_job_survives_the_store(tmp_path: Path) -> None:
    job = Job("m.onnx", "d.npz", ("size<=1kB",), "out", recipe=("int8",), max_time=2.5, lenient=True)
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('bugdet = ["size<=1kB"]', "did you mean 'budget'"),
        ('budget = "size<=1kB"', "a list of texts"),
        ("budget = [1]", "budget"),
        ("max-time = true", "max_time"),
        ("lenient = 1", "true or false"),
        ("not toml", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_name_the_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "fit.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"fit\.toml") as e:
        jobs.read(file)
    assert says in str(e.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="no budget"):
        jobs.make({"model": "m", "data": "d", "out": "o"})
    with pytest.raises(UserError, match=r"--data eval\.npz"):
        jobs.make({"model": "m", "out": "o", "budget": ["size<=1kB"]})
    with pytest.raises(UserError, match="max_trials"):
        jobs.make({"model": "m", "data": "d", "out": "o", "budget": ["size<=1kB"], "max_trials": 0})
