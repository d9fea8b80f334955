"""The main job over a real sshd, through the command line: the real CIFAR-10 ResNet8, ONNX and TFLite."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import cli, sshd

pytestmark = pytest.mark.skipif(not sshd.available(), reason="NO SSHD HERE: run `make system-deps`")


@dataclass
class Board:
    """A device behind an sshd, registered as `board`, with the agent and its runtimes installed under `root`."""

    server: sshd.Sshd
    root: Path
    env: dict[str, str]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    with sshd.sshd(folder / "sshd") as server, pytest.MonkeyPatch.context() as patch:
        env = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        env["EDGELATHE_SSH_CONFIG"] = str(server.config)
        for key, value in env.items():
            patch.setenv(key, value)
        root = folder / "root"
        wrong = server.fingerprint[:-2] + ("AA" if not server.fingerprint.endswith("AA") else "BB")
        add = ("device", "add", "board", f"ssh://{server.name}", "--root", root)
        assert "key" in cli.error(*add, "--fingerprint", wrong, code=3)
        assert cli.answer("device", "list")["devices"] == []
        assert "--fingerprint" in cli.error(*add, code=3)  # nobody can be asked here, so nothing is trusted
        cli.run(*add, "--fingerprint", server.fingerprint)
        cli.run("device", "install", "board", fresh=True)
        yield Board(server, root, env)


@pytest.fixture(autouse=True)
def at_the_board(own_home: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in board.env.items():
        monkeypatch.setenv(key, value)


def fit_args(data: Path, out: Path, format: str, *budget: str) -> list[object]:
    folder = data / "cifar10_resnet8"
    file = out.parent / "eval.toml"
    file.write_text(f'path = "{folder}/eval_jpeg.npz"\nlabels = "y"\n')
    calib = out.parent / "calib.toml"
    calib.write_text(f'path = "{folder}/calib.npz"\nlabels = "y"\nlimit = 256\n')
    limits = [a for b in budget for a in ("--budget", b)]
    return ["fit", folder / f"model.{format}", "--data", file, "--calib", calib, *limits, "-o", out]


def figures(document: dict[str, Any]) -> dict[str, Any]:
    """By recipe, and accuracy by samples: which candidate is chosen, and so seen whole, is a matter of its times."""
    rows = [document["baseline"], *document["candidates"]]
    return {c["recipe"]: (c["sha256"], c["runtime"], {c["accuracy"]["n"]: c["accuracy"]["value"]}) for c in rows}


def test_probe_and_doctor_say_what_the_device_is(board: Board) -> None:
    probe = cli.answer("device", "probe", "board", fresh=True)
    assert probe["machine"] == os.uname().machine
    assert probe["emulated"] is False
    assert {"onnxruntime", "ai-edge-litert"} <= {r["name"] for r in probe["runtimes"]}
    checks = cli.answer("device", "doctor", "board", fresh=True)["checks"]
    assert all(c["state"] != "fail" for c in checks)
    assert {"login", "python", "agent", "runtime", "disk"} <= {c["name"] for c in checks}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_fit_over_ssh_meets_its_budget_with_the_figures_of_the_local_device(
    board: Board, data_dir: Path, tmp_path: Path, format: str
) -> None:
    budget = ("size<=0.5x", "accuracy.drop<=1.5%")
    there = cli.answer(*fit_args(data_dir, tmp_path / "there", format, *budget), "--device", "board", "--max-trials", 2)
    here = cli.answer(*fit_args(data_dir, tmp_path / "here", format, *budget), "--max-trials", 2)
    assert there["met"]
    local = figures(here)
    for recipe, (sha256, runtime, accuracy) in figures(there).items():
        assert (sha256, runtime) == local[recipe][:2]
        assert accuracy == local[recipe][2] or accuracy.keys() != local[recipe][2].keys()
    assert figures(there)[""] == local[""]
    assert there["device"]["name"] == "board"
    assert json.loads((tmp_path / "there" / "result.json").read_text()) == there


def test_an_impossible_budget_ends_with_a_reason(board: Board, data_dir: Path, tmp_path: Path) -> None:
    args = fit_args(data_dir, tmp_path / "out", "onnx", "size<=0.01x")
    document = cli.answer(*args, "--device", "board", "--max-trials", 1, code=1)
    assert "size" in document["reason"]
    assert (tmp_path / "out" / "model.onnx").exists()


def test_a_lost_connection_loses_no_finished_measurement(board: Board, data_dir: Path, tmp_path: Path) -> None:
    args = fit_args(data_dir, tmp_path / "out", "onnx", "size<=0.01x")
    process = cli.start(*args, "--device", "board", "--max-trials", 2)
    known = {row["run"] for row in cli.answer("runs", "list")["runs"]}
    run, before, deadline = "", {}, time.monotonic() + 120
    while not before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        for row in cli.answer("runs", "list")["runs"]:
            if row["run"] not in known or row["state"] == "running":
                run = row["run"]
                before = measured(cli.answer("runs", "show", run))
    board.server.cut()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert f"--resume {run}" in err
    document = cli.answer("fit", "--resume", run, code=1)
    after = measured(document)
    assert before.items() <= after.items()
    assert len(after) > len(before)


@pytest.mark.slow
def test_an_evaluation_goes_on_where_the_connection_was_lost(board: Board, data_dir: Path, tmp_path: Path) -> None:
    folder, data = data_dir / "cifar10_resnet8", tmp_path / "many.npz"
    with np.load(folder / "eval.npz") as f:
        np.savez(data, x=np.tile(f["x"], (4, 1, 1, 1)), y=np.tile(f["y"], 4))
    args = ("eval", folder / "model.onnx", "--data", data, "--device", "board")
    process = cli.start(*args, "--json")
    kept = Path(board.env["XDG_CACHE_HOME"]) / "edgelathe" / "eval"
    while not any(p.stat().st_size > 10_000 for p in kept.glob("*.npys")):
        assert process.poll() is None
        time.sleep(0.02)
    board.server.cut()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    (result,) = cli.answer(*args)["results"]
    assert any("samples were measured before it was cut off" in w for w in result["warnings"])
    (whole,) = cli.answer("eval", folder / "model.onnx", "--data", data)["results"]
    assert result["accuracy"] == whole["accuracy"]
    assert list(kept.iterdir()) == []


def test_a_closed_port_is_one_line_and_exit_code_3(board: Board, data_dir: Path) -> None:
    line = cli.error(
        "bench", data_dir / "cifar10_resnet8" / "model.onnx", "--device", "ssh://nobody@127.0.0.1:9", code=3
    )
    assert "127.0.0.1:9" in line


def test_a_fleet_is_checked_host_by_host(board: Board, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[groups.lab]\nprofile = "x86-cpu"\nhosts = ["board", "ssh://nobody@127.0.0.1:9"]\n')
    document = cli.answer("fleet", "check", "-f", fleet, code=1)
    assert [d["state"] for d in document["devices"]] == ["ready", "unreachable"]
    fleet.write_text('[groups.lab]\nprofile = "raspberry-pi-4"\nhosts = ["board"]\n')
    expected = "other-profile" if os.uname().machine == "x86_64" else "ready"
    assert cli.answer("fleet", "check", "-f", fleet, code=int(expected != "ready"))["devices"][0]["state"] == expected
    fleet.write_text('[groups.lab]\nhosts = ["board"]\n')
    assert cli.answer("fleet", "check", "-f", fleet, fresh=True)["state"] == "ready"


def test_uninstall_leaves_nothing(board: Board) -> None:  # the last one: it takes the device away from the others
    cli.run("device", "uninstall", "board", fresh=True)
    assert not board.root.exists()
    for _ in range(50):
        processes = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        if str(board.root) not in processes:
            break
        time.sleep(0.1)
    else:
        pytest.fail("an agent is left on the device")
    assert "device install board" in cli.run("device", "doctor", "board", code=1).stdout


def measured(document: dict[str, Any]) -> dict[str, Any]:
    rows = [c for c in [document["baseline"], *document["candidates"]] if c]
    return {c["id"]: c["latency_ms"] for c in rows if c["status"] == "measured"}
