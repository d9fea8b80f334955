"""The command line against a device that is aarch64 down to its C library: its own Python and runtimes, over ssh.

The processor is emulated: no test looks at how long anything takes, or at which model is faster.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import aarch64, cli

pytestmark = pytest.mark.arm

BRIEF = ("--min-time", "500ms", "--max-time", "2s", "--cool-down", "0s")
LONG = ("--min-time", "60s", "--max-time", "90s", "--cool-down", "0s")


@dataclass
class Board:
    """A running device that is registered as `arm`, with the agent and its runtimes installed; `env`: of its user."""

    arm: aarch64.Arm
    wheels: Path
    env: dict[str, str]
    said: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> aarch64.Built:
    """The root and wheels of the device, from the cache where they are there."""
    why = aarch64.why_not(tmp_path_factory.mktemp("arm") / "try")
    if why:
        pytest.skip(f"NO ARM DEVICE HERE: {why}")
    try:
        return aarch64.build(aarch64.cache())
    except aarch64.NoArmError as e:
        pytest.skip(f"NO ARM DEVICE HERE: {e}")


@pytest.fixture(scope="module")
def board(built: aarch64.Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("arm-board")
    with aarch64.device(folder / "arm", built.root) as arm, pytest.MonkeyPatch.context() as patch:
        env = home(folder / "home", arm)
        for key, value in env.items():
            patch.setenv(key, value)
        cli.run("device", "add", "arm", "ssh://arm")
        said = cli.run("device", "install", "arm", "--wheels", built.wheels).stdout
        yield Board(arm, built.wheels, env, said)
        pids = arm.processes()
    assert pids, "the device was gone before its end"
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "something of the device runs on"
    assert str(folder) not in Path("/proc/self/mounts").read_text(), "something of the device is mounted"


@pytest.fixture(autouse=True)
def at_the_board(own_home: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in board.env.items():
        monkeypatch.setenv(key, value)


@pytest.fixture(scope="module")
def resnet(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real ResNet8: model.onnx, int8.onnx, int8.tflite; 20 images as eval.toml, 100 as calib.toml."""
    source, folder = data_dir / "cifar10_resnet8", tmp_path_factory.mktemp("resnet")
    for name, limit in (("eval", 20), ("calib", 100)):
        (folder / f"{name}.toml").write_text(f'path = "{source}/{name}.npz"\nlabels = "y"\nlimit = {limit}\n')
    (folder / "model.onnx").symlink_to(source / "model.onnx")
    (folder / "int8.tflite").symlink_to(source / "model_int8_reference.tflite")
    calib = ("--data", folder / "calib.toml")
    cli.run("compress", folder / "model.onnx", "--recipe", "int8", *calib, "-o", folder / "int8.onnx")
    return folder


def test_it_is_an_arm_machine_without_an_installer(board: Board) -> None:
    assert board.arm.ssh("uname", "-m") == "aarch64\n"
    assert "No module named pip" in board.arm.ssh("python3 -m pip 2>&1 || true")
    assert "No module named ensurepip" in board.arm.ssh("python3 -m ensurepip 2>&1 || true")


def test_its_processor_is_the_same_for_programs_that_clear_their_environment(board: Board) -> None:
    if not (board.arm.folder / "host" / "cpu").exists():
        pytest.skip("NO C COMPILER HERE: the processor is pinned by the environment only")
    with_it = board.arm.ssh("LD_SHOW_AUXV=1 /bin/true | grep HWCAP")
    assert board.arm.ssh("env -i LD_SHOW_AUXV=1 /bin/true | grep HWCAP") == with_it != ""


def test_probe_says_what_it_is_and_that_it_is_emulated(board: Board) -> None:
    assert "emulated" in board.said
    probe = cli.answer("device", "probe", "arm")
    assert (probe["machine"], probe["cpu"], probe["cores"]) == ("aarch64", "Cortex-A72", os.cpu_count())
    assert probe["emulated"] is True
    assert "qemu" in probe["emulated_why"]
    assert probe["profile"] == "arm-cpu"
    assert {"onnxruntime", "ai-edge-litert"} <= {r["name"] for r in probe["runtimes"]}
    assert probe["broken"] == []
    assert (probe["governor"], probe["clock_max_khz"]) == ("ondemand", 1_500_000)


def test_temperature_clock_and_throttling_are_those_of_the_device(board: Board) -> None:
    try:
        board.arm.heat(83.5)
        board.arm.clock(600_000)
        board.arm.throttle(2)
        now = cli.answer("device", "probe", "arm")["conditions"]
    finally:
        board.arm.cool()
    assert now["temperatures_c"] == {"cpu-thermal": 83.5}
    assert set(now["clocks_khz"].values()) == {600_000}
    assert now["throttled"] is True


@pytest.mark.slow
def test_doctor_warns_and_finds_nothing_broken(board: Board) -> None:
    try:
        board.arm.heat(83.5)
        checks = {c["name"]: c for c in cli.answer("device", "doctor", "arm")["checks"]}
    finally:
        board.arm.cool()
    assert all(c["state"] != "fail" for c in checks.values())
    assert checks["machine"]["state"] == "warn"
    assert checks["governor"]["state"] == "warn"
    assert checks["temperature"]["state"] == "warn"
    assert "cpu-thermal" in checks["temperature"]["what"]


def test_bench_gives_ordered_figures_labelled_emulated(board: Board, resnet: Path) -> None:
    document = cli.answer("bench", resnet / "int8.onnx", "--device", "arm", *BRIEF)
    assert document["device"]["machine"] == "aarch64"
    (result,) = document["results"]
    latency = result["latency_ms"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["max"]
    assert result["emulated"] is True
    assert result["grade"]["letter"] == "D"
    assert any("emulated" in reason for reason in result["grade"]["reasons"])


@pytest.mark.slow
def test_the_terminal_says_emulated_too(board: Board, resnet: Path) -> None:
    files = (resnet / "int8.onnx", resnet / "int8.tflite")
    done = cli.run("bench", *files, "--device", "arm", *BRIEF)
    assert "emulated" in done.stdout


@pytest.mark.slow
def test_trace_names_the_model_s_layers_and_the_kernels_of_arm(board: Board, resnet: Path) -> None:
    (traced,) = cli.answer("trace", resnet / "int8.onnx", "--device", "arm")["models"]
    assert sum(row["kernel"] == "QLinearConv" for row in traced["rows"]) == 9
    assert all(row["layer"] for row in traced["rows"] if row["op"] == "Conv")
    assert traced["grade"]["letter"] == "D"


@pytest.mark.slow
def test_eval_gives_the_host_s_answers(board: Board, resnet: Path) -> None:
    files = (resnet / "model.onnx", resnet / "int8.onnx", resnet / "int8.tflite")
    there = cli.answer("eval", *files, "--data", resnet / "eval.toml", "--device", "arm")["results"]
    here = cli.answer("eval", *files, "--data", resnet / "eval.toml")["results"]
    for device, host in zip(there, here, strict=True):
        assert device["accuracy"]["value"] == host["accuracy"]["value"] >= 0.8
        assert (device["parity"]["n"], device["parity"]["flips"]) == (20, 0)
    assert 0 < there[0]["parity"]["max_abs"] < 1e-4  # sums in another order: equal to the last bit would be suspicious
    assert there[2]["parity"]["exact"] == 20  # integers have no order


@pytest.mark.slow
def test_fit_takes_no_time_of_it_as_proof_unless_allowed(board: Board, resnet: Path, tmp_path: Path) -> None:
    data = ("--data", resnet / "eval.toml", "--calib", resnet / "calib.toml", "--device", "arm")
    args = ("fit", resnet / "int8.onnx", *data, "--recipe", "fold", "--max-trials", 1, "--budget", "latency.p50<=20s")
    held = cli.answer(*args, "--budget", "size<=2x", "-o", tmp_path / "held", code=1)
    assert verdicts(held) == {"latency.p50": "undecided", "size": "met"}
    assert "--allow-emulated" in str(held["budget"])
    with cli.start(*args, "--allow-emulated", "-o", tmp_path / "judged", "--json") as process:
        judged = json.loads(process.communicate(timeout=400)[0])
    (line,) = judged["budget"]
    assert "--allow-emulated" not in str(line)
    assert judged["device"]["emulated"] is True
    # A machine so busy that too few calls are worth anything gives no bound.
    assert line["verdict"] == ("undecided" if line["bound"] is None else "met")
    assert process.returncode == (line["verdict"] != "met")


@pytest.mark.slow
def test_a_dropped_connection_leaves_nothing_running(board: Board, resnet: Path) -> None:
    process = cli.start("bench", resnet / "int8.onnx", "--device", "arm", "--tune", *LONG)
    wait(lambda: len(agents(board)) >= 3)  # the agent, what puts the governor back, and the child that runs the model
    wait(lambda: board.arm.governor == "performance")
    board.arm.cut()
    out, err = process.communicate(timeout=cli.HANGS)
    assert (process.returncode, out) == (3, "")
    assert err.strip().splitlines()[-1].startswith("error: arm: ")
    assert "Traceback" not in err
    wait(lambda: not agents(board))
    assert board.arm.governor == "ondemand"
    assert cli.answer("device", "probe", "arm")["runtimes"]


@pytest.mark.slow
def test_after_a_power_cut_it_is_as_it_was(board: Board, resnet: Path) -> None:
    process = cli.start("bench", resnet / "int8.onnx", "--device", "arm", *LONG)
    wait(lambda: len(agents(board)) >= 2)
    board.arm.cut_power()
    _, err = process.communicate(timeout=cli.HANGS)
    assert process.returncode == 3
    assert "error: arm: " in err
    assert "error: arm: " in cli.error("device", "probe", "arm", code=3)
    board.arm.boot()
    probe = cli.answer("device", "probe", "arm")
    assert {"onnxruntime", "ai-edge-litert"} <= {r["name"] for r in probe["runtimes"]}


@pytest.mark.slow
def test_doctor_tunes_and_puts_back(board: Board) -> None:
    cli.run("device", "doctor", "arm", "--tune")
    assert board.arm.governor == "performance"
    cli.run("device", "doctor", "arm", "--restore")
    assert board.arm.governor == "ondemand"


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_can_be_cleared(
    built: aarch64.Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with aarch64.device(tmp_path / "full", built.root, name="full", disk="8m") as full:
        for key, value in home(tmp_path / "home", full).items():
            monkeypatch.setenv(key, value)
        cli.run("device", "add", "full", "ssh://full")
        line = cli.error("device", "install", "full", "--wheels", built.wheels, code=3)
        assert "space" in line or "free" in line
        cli.run("device", "uninstall", "full")
        assert full.ssh("ls", "-A", ".local/share") == ""


@pytest.mark.slow
def test_uninstall_leaves_nothing(board: Board) -> None:  # the last one: it takes the device away from the others
    cli.run("device", "uninstall", "arm")
    assert board.arm.ssh("find . /tmp -type f") == ""
    assert board.arm.ssh("ls", "-A", ".local/share") == ""
    wait(lambda: not agents(board))


def home(folder: Path, arm: aarch64.Arm) -> dict[str, str]:
    """The environment of a user of the host whose ssh config names the device."""
    env = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
    return {**env, "EDGELATHE_SSH_CONFIG": str(arm.config)}


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {line["metric"]: line["verdict"] for line in document["budget"]}


def agents(board: Board) -> list[int]:
    return board.arm.processes("qemu", "edgelathe")


def wait(until: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
