"""The main job on this machine, through the command line."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from support import cli

FILES = {"recipe.toml", "result.json", "report.html", "junit.xml"}


@pytest.fixture(scope="module")
def digits() -> Path:
    import edgelathe

    return Path(edgelathe.__file__).parent / "bundled"


def fit_args(digits: Path, out: Path, *budget: str, format: str = "onnx", trials: int = 2) -> list[object]:
    limits = [a for b in budget for a in ("--budget", b)]
    data = ("--data", digits / "eval.npz", "--calib", digits / "calib.npz")
    return ["fit", digits / f"digits.{format}", *data, *limits, "--max-trials", trials, "-o", out]


def test_the_demo_meets_its_budget_and_writes_its_report(tmp_path: Path) -> None:
    done = cli.run("demo", "-o", tmp_path / "demo", fresh=True)
    assert "met by" in done.stdout
    assert "int8" in done.stdout
    assert {p.name for p in (tmp_path / "demo").iterdir()} == FILES | {"model.onnx"}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_fit_writes_what_it_says_and_its_recipe_replays(tmp_path: Path, digits: Path, format: str) -> None:
    out = tmp_path / "out"
    document = cli.answer(*fit_args(digits, out, "size<=0.5x", "accuracy.drop<=2%", format=format))
    model = out / f"model.{format}"
    assert {p.name for p in out.iterdir()} == FILES | {model.name}
    assert json.loads((out / "result.json").read_text()) == document
    chosen = next(c for c in document["candidates"] if c["id"] == document["chosen"])
    sha = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (chosen["sha256"], chosen["bytes"]) == (sha, model.stat().st_size)
    replay = tmp_path / f"replay.{format}"
    digits_model = digits / f"digits.{format}"
    calib = digits / "calib.npz"
    cli.run("compress", digits_model, "--recipe", out / "recipe.toml", "--data", calib, "-o", replay, fresh=True)
    assert hashlib.sha256(replay.read_bytes()).hexdigest() == sha
    shown = cli.answer("runs", "show", document["run"][:6], fresh=True)
    assert shown == document
    cli.run("report", document["run"], "-o", tmp_path / "r.html", fresh=True)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>".upper()) or "<html" in (
        tmp_path / "r.html"
    ).read_text()
    listed = cli.answer("runs", "list")["runs"]
    assert [(r["run"], r["met"]) for r in listed] == [(document["run"], True)]
    cli.run("runs", "delete", document["run"])
    assert cli.answer("runs", "list")["runs"] == []


def test_an_impossible_budget_names_the_limit_and_writes_the_closest(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out"
    document = cli.answer(*fit_args(digits, out, "size<=0.01x"), code=1)
    assert document["met"] is False
    assert [line["verdict"] for line in document["budget"]] == ["missed"]
    assert "size" in document["reason"]
    smallest = min(c["bytes"] for c in document["candidates"] if c["status"] == "measured")
    assert (out / "model.onnx").stat().st_size == smallest
    assert "<failure" in (out / "junit.xml").read_text()


def test_without_calib_a_part_is_set_aside_and_the_recipe_replays_it(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out"
    args = ["fit", digits / "digits.onnx", "--data", digits / "eval.npz", "--budget", "size<=0.5x", "-o", out]
    done = cli.run(*args, "--max-trials", "1", "--json")
    assert "set aside" in done.stderr or "for calibration" in done.stderr
    document = json.loads(done.stdout)
    samples = len(np.load(digits / "eval.npz")["x"])
    assert document["baseline"]["accuracy"]["n"] < samples
    replay = tmp_path / "replay.onnx"
    cli.run(
        "compress", digits / "digits.onnx", "--recipe", out / "recipe.toml", "--data", digits / "eval.npz", "-o", replay
    )
    assert hashlib.sha256(replay.read_bytes()).hexdigest() == document["candidates"][0]["sha256"]


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out"
    process = cli.start(*fit_args(digits, out, "size<=0.01x"), "--json")
    deadline = time.monotonic() + 120
    before: dict[str, object] = {}
    while not before and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
        for row in cli.answer("runs", "list")["runs"]:
            shown = cli.answer("runs", "show", row["run"])
            before = {
                c["id"]: c["latency_ms"] for c in [shown["baseline"], *shown["candidates"]] if c and c["latency_ms"]
            }
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    partial = json.loads(stdout)
    assert (partial["met"], partial["chosen"]) == (None, None)
    assert f"--resume {partial['run']}" in stderr
    assert not out.exists()
    document = cli.answer("fit", "--resume", partial["run"], code=1)
    after = {c["id"]: c["latency_ms"] for c in [document["baseline"], *document["candidates"]]}
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert (out / "model.onnx").exists()


def test_a_fit_file_does_what_the_options_do(tmp_path: Path, digits: Path) -> None:
    file = tmp_path / "fit.toml"
    file.write_text(
        f'model = "{digits}/digits.onnx"\ndata = "{digits}/eval.npz"\ncalib = "{digits}/calib.npz"\n'
        'budget = ["size<=0.5x"]\nrecipe = ["fp16"]\nmax-trials = 1\nout = "out"\n'
    )
    for _ in range(2):  # the second time over its own results
        document = cli.answer("fit", "-f", file)
        assert [c["recipe"] for c in document["candidates"]] == ["fp16"]
        assert json.loads((tmp_path / "out" / "result.json").read_text()) == document
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {"model.onnx"}


def test_bench_compares_models_in_turns(digits: Path) -> None:
    models = (digits / "digits.onnx", digits / "digits.tflite")
    document = cli.answer("bench", *models, "--data", digits / "eval.npz", "--min-time", "1", "--cool-down", "0")
    assert [r["runtime"] for r in document["results"]] == ["onnxruntime", "ai-edge-litert"]
    for result in document["results"]:
        latency = result["latency_ms"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
        assert latency["p50_ci"][0] <= latency["p50"] <= latency["p50_ci"][1]
    (pair,) = document["comparisons"]
    assert pair["low"] <= pair["ratio"] <= pair["high"]


def test_eval_equals_the_plain_runtime(digits: Path) -> None:
    import onnxruntime as ort

    data = np.load(digits / "eval.npz")
    session = ort.InferenceSession(str(digits / "digits.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x = data["x"].astype(np.float32)
    right = sum(int(session.run(None, {name: x[i : i + 1]})[0].argmax() == data["y"][i]) for i in range(len(x)))
    models = (digits / "digits.onnx", digits / "digits.tflite")
    results = cli.answer("eval", *models, "--data", digits / "eval.npz")["results"]
    assert [round(r["accuracy"]["value"] * r["accuracy"]["n"]) for r in results] == [right, right]
    assert all(r["parity"]["same"] == r["parity"]["n"] for r in results)


def test_labels_may_be_left_out(tmp_path: Path, digits: Path) -> None:
    np.savez(tmp_path / "bare.npz", x=np.load(digits / "eval.npz")["x"][:200])
    args = ["fit", digits / "digits.onnx", "--data", tmp_path / "bare.npz", "--calib", digits / "calib.npz"]
    document = cli.answer(*args, "--budget", "size<=0.6x", "--max-trials", "1", "-o", tmp_path / "out")
    assert document["baseline"]["accuracy"]["value"] == 1.0
    assert document["candidates"][0]["accuracy"]["value"] > 0.9


def test_a_metric_of_ones_own_runs_on_the_host(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef margin(outputs, labels):\n    return float((outputs.argmax(1) == labels).mean())\n"
    )
    (tmp_path / "d.toml").write_text(f'path = "{digits}/eval.npz"\nlabels = "y"\nlimit = 100\nmetric = "mine:margin"\n')
    done = cli.run("eval", digits / "digits.onnx", "--data", tmp_path / "d.toml", "--json", cwd=tmp_path)
    accuracy = json.loads(done.stdout)["results"][0]["accuracy"]
    assert accuracy["metric"] == "mine:margin"
    assert accuracy["value"] > 0.9


def test_refusals_write_nothing_and_leave_no_run(tmp_path: Path, digits: Path) -> None:
    out = tmp_path / "out"
    good = fit_args(digits, out, "size<=0.5x")
    cases = [
        ([*good, "--profile", "no-such-board"], "no-such-board"),
        ([*good, "--device", "no-such-device"], "no-such-device"),
        ([*good, "--recipe", "int9"], "int9"),
        ([*good, "--recipe", "int8(scael=mse)"], "scael"),
        ([*good, "--budget", "sise<=1kB"], "sise"),
        ([*good, "--budget", "energy<=1mJ"], "energy"),
        (["fit", digits / "eval.npz", *good[2:]], "eval.npz"),
    ]
    for args, word in cases:
        assert word in cli.error(*args)
    assert not out.exists()
    assert cli.answer("runs", "list")["runs"] == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert "thesis.txt" in cli.error(*fit_args(digits, other, "size<=0.5x"))


def test_a_run_goes_on_only_with_what_it_began_with(tmp_path: Path, digits: Path) -> None:
    data = dict(np.load(digits / "eval.npz"))
    np.savez(tmp_path / "d.npz", **data)
    args = ["fit", digits / "digits.onnx", "--data", tmp_path / "d.npz", "--calib", digits / "calib.npz"]
    process = cli.start(*args, "--budget", "size<=0.01x", "-o", tmp_path / "out")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(r["state"] == "running" for r in cli.answer("runs", "list")["runs"]):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    run = cli.answer("runs", "list")["runs"][0]["run"]
    assert f"--resume {run}" in err
    np.savez(tmp_path / "d.npz", x=data["x"], y=(data["y"] + 1) % 10)
    assert "the data changed" in cli.error("fit", "--resume", run)


def test_a_quantized_model_is_refused_by_the_steps_that_quantize(tmp_path: Path, digits: Path) -> None:
    small = tmp_path / "int8.onnx"
    calib = ("--data", digits / "calib.npz")
    cli.run("compress", digits / "digits.onnx", "--recipe", "int8", *calib, "-o", small)
    assert "quantized already" in cli.error(
        "compress", small, "--recipe", "int8", *calib, "-o", tmp_path / "again.onnx"
    )
    assert not (tmp_path / "again.onnx").exists()
    document = cli.answer(
        "fit", small, *calib, "--calib", digits / "calib.npz", "--budget", "size<=0.5x", "-o", tmp_path / "out", code=1
    )
    assert {c["status"] for c in document["candidates"]} <= {"failed", "rejected", "measured"}
    assert (tmp_path / "out" / "result.json").exists()


def test_a_profile_of_another_machine_is_said_to_be(tmp_path: Path, digits: Path) -> None:
    other = "x86-cpu" if "arm" in __import__("platform").machine() else "jetson-orin-nano"
    args = ("bench", digits / "digits.onnx", "--profile", other, "--min-time", "0.2", "--cool-down", "0", "--json")
    warnings = json.loads(cli.run(*args).stdout)["results"][0]["warnings"]
    assert any(other in text for text in warnings)


def test_a_model_may_go_to_a_stream(tmp_path: Path, digits: Path) -> None:
    import subprocess
    import sys

    argv = [
        sys.executable,
        "-m",
        "edgelathe.cli.main",
        "compress",
        str(digits / "digits.onnx"),
        "--recipe",
        "fp16",
        "-o",
        "-",
    ]
    done = subprocess.run(argv, capture_output=True, check=True, cwd=tmp_path)
    cli.run("compress", digits / "digits.onnx", "--recipe", "fp16", "-o", tmp_path / "file.onnx")
    assert done.stdout == (tmp_path / "file.onnx").read_bytes()
    assert not (tmp_path / "-").exists()
