import re
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from edgelathe.core.device import Probe, Runtime, SessionOptions
from edgelathe.core.errors import DeviceError, UserError
from edgelathe.device import doctor, install
from edgelathe.device.open import open_device
from edgelathe_agent import tidy
from support.wheels import rebuild, tiny

HOST = sys.version_info[:2]


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def probe(profile="x86-cpu", runtimes=()):
    return Probe("cam", "x86_64", "cpu", 4, 1 << 30, "3.11.2", runtimes, False, profile=profile)


def test_the_hosts_versions_are_tried_first_then_any_then_the_older_runtime_then_one_alone():
    pinned, any_version, older, *alone = install.attempts(["onnxruntime", "ai-edge-litert"], HOST)
    assert pinned == tuple(f"{n}=={metadata.version(n)}" for n in ("onnxruntime", "ai-edge-litert", "numpy"))
    assert any_version == ("onnxruntime", "ai-edge-litert", "numpy")
    assert older == ("onnxruntime", "tflite-runtime", "numpy<2")
    assert alone == [("onnxruntime", "numpy"), ("ai-edge-litert", "numpy")]


def test_numpy_is_not_pinned_where_pip_may_have_to_compile_it():
    assert next(iter(install.attempts(["onnxruntime"], (3, 8))))[-1] == "numpy"
    assert all("tflite-runtime" not in r for r in install.attempts(["ai-edge-litert"], (3, 13)))


def test_runtimes_follow_the_profile_and_one_for_tflite_is_enough():
    names = install.wanted(probe())
    assert "onnxruntime" in names
    assert len([n for n in names if n != "onnxruntime"]) == 1
    assert install.wanted(probe(profile=None)) == ("onnxruntime", "ai-edge-litert")


def test_an_accelerated_runtime_of_the_board_is_not_hidden():
    board = probe("jetson-gpu", (Runtime("onnxruntime", "1.18", ("CUDAExecutionProvider", "CPUExecutionProvider")),))
    assert install.accelerated(board) == "onnxruntime 1.18 with CUDAExecutionProvider"
    assert install.accelerated(probe(runtimes=(Runtime("onnxruntime", "1.18", ("CPUExecutionProvider",)),))) == ""


def test_the_local_device_needs_nothing(local):
    installed = install.install(local)
    assert installed.probe.runtime("onnxruntime")
    assert "nothing is to be installed" in installed.notes[0]
    assert not (Path(local.root) / "venv").exists()


def test_from_wheels_and_away_again(board, tmp_path, digits_tflite, samples):
    """A real environment on the device, without an index; then nothing is left."""
    board = replace(board, python=getattr(sys, "_base_executable", sys.executable))
    folder = tmp_path / "wheels"
    for name in ("tflite-runtime", "numpy"):
        rebuild(name, folder)
    heard = []
    with open_device(board) as device:
        if device.probe.runtime("tflite-runtime"):
            pytest.skip("this Python has a runtime of its own")
    assert [c.name for c in doctor.doctor(board) if c.state == "fail"] == ["runtime"]
    installed = install.install(board, wheels_dir=folder, progress=heard.append)
    assert [r.name for r in installed.probe.runtimes] == ["tflite-runtime"]
    assert any(line.startswith("sending numpy") for line in heard)
    with open_device(board) as device:
        options = SessionOptions("tflite-runtime", "CPU")
        with device.open_session(digits_tflite, options) as session:
            session.feed({"input" if not session.inputs else session.inputs[0]["name"]: samples[:3].astype("float32")})
            assert session.infer(0, 3)[0].shape == (3, 10)
        assert device.client.hello["runtimes"] == ["tflite-runtime"]
    assert not doctor.broken(doctor.doctor(board))
    assert install.uninstall(board) == ()
    assert not Path(board.root).exists()


def test_wheels_that_do_not_fit_change_nothing(board, tmp_path):
    tiny(tmp_path / "wheels", "onnxruntime-1-cp27-cp27mu-manylinux1_x86_64.whl")
    with pytest.raises(UserError, match=r"no wheel of onnxruntime fits board: onnxruntime-\*-cp3"):
        install.install(board, wheels_dir=tmp_path / "wheels")
    assert listing(Path(board.root)) == ["agent"]


class TestUninstall:
    def test_files_of_others_stay(self, board):
        with open_device(board) as device:
            device.push(b"x")
        (Path(board.root) / "photo.jpg").write_text("mine")
        assert install.uninstall(board) == ("photo.jpg",)
        assert listing(Path(board.root)) == ["photo.jpg"]

    def test_a_device_without_a_python_is_cleared_by_its_shell(self, board):
        with open_device(board) as device:
            device.push(b"x")
        (Path(board.root) / "photo.jpg").write_text("mine")
        broken = replace(board, python="/nowhere/python3")
        assert install.uninstall(broken) == ("photo.jpg",)
        (Path(board.root) / "photo.jpg").unlink()
        assert install.uninstall(broken) == ()
        assert not Path(board.root).exists()
        assert install.uninstall(broken) == ()

    def test_a_folder_that_is_not_ours_is_not_touched(self, board, tmp_path):
        (tmp_path / "home" / "cas").mkdir(parents=True)
        (tmp_path / "home" / "cas" / "photo.jpg").write_text("mine")
        for python in (sys.executable, "/nowhere/python3"):
            with pytest.raises(DeviceError, match="is not edgelathe's own; nothing was removed"):
                install.uninstall(replace(board, root=str(tmp_path / "home"), python=python))
        assert (tmp_path / "home" / "cas" / "photo.jpg").exists()

    def test_the_shell_knows_the_names_that_the_agent_makes(self):
        assert set(install.OURS) == set(tidy.OURS)

    def test_the_shells_program_survives_any_login_shell(self):
        assert not re.search(r"['\\!\n]", install._CLEAR)


@pytest.mark.slow
def test_from_the_devices_own_index(board):
    board = replace(board, python=getattr(sys, "_base_executable", sys.executable))
    heard = []
    try:
        installed = install.install(board, progress=heard.append)
    except DeviceError as e:
        if "does not reach its package index" in str(e):
            pytest.skip("NO PACKAGE INDEX here")
        raise
    assert {r.name for r in installed.probe.runtimes} >= {"onnxruntime"}
    assert installed.probe.runtime("onnxruntime").version == metadata.version("onnxruntime")
    install.uninstall(board)
    assert not Path(board.root).exists()
