"""Options of `bench` that are refused before anything is opened, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgelathe.cli import main

MODEL = "nowhere.onnx"  # the options are looked at first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--period", "33"], "--period: '33' has no unit"),
        (["--sustain", "ten minutes"], "--sustain"),
        (["--min-time", "0"], "--min-time"),
        (["--min-time", "5s", "--max-time", "1s"], "--max-time"),
        (["--scenario", "server"], "no scenario 'server'"),
        (["--period", "33ms", "--sustain", "1min"], "two scenarios"),
        (["--streams", "4"], "--scenario multi-stream"),
        (["--percentile", "42"], "--percentile"),
        (["--budget", "latency.p95<=4"], "the unit is missing"),
        (["--budget", "accuracy>=90%"], "edgelathe eval"),
        (["--budget", "memory<=4MB"], "--memory"),
        (["--processes", "2"], "--processes"),
        (["--processes", "5", "--period", "33ms"], "--processes"),
        (["--shape", "x=1,3,a"], "--shape: '1,3,a'"),
        (["--shape", "x=1,3,8,8", "--data", "d.npz"], "the data have shapes of their own"),
        (["--set", "verbose"], "KEY=VALUE"),
        (["--set", "a=1", "--set", "a=2"], "said twice"),
        (["--raw", "samples.parquet"], ".csv, .npz, .json"),
        (["--raw", "no/such/folder/x.csv"], "folder"),
        (["--cool-down", "-1s"], "--cool-down"),
        ([], "nowhere.onnx"),
    ],
)
def test_refusals(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench", MODEL, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert says in err


@pytest.mark.parametrize(("command", "page"), [("bench", "bench"), ("eval", "accuracy"), ("trace", "trace")])
def test_every_option_is_described(command: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([command, "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    common = {"--json", "--quiet", "--verbose", "--store", "--ssh-config", "--help"}
    assert {o for o in options - common if o not in text} == set()
