"""The first stage, with cut pipes, closed input and strange roots, by itself and through a shell."""

import fcntl
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from edgelathe.core.errors import DeviceError
from edgelathe.device import bootstrap
from edgelathe.device.errors import NoPython
from edgelathe.device.local import LocalTransport
from edgelathe.device.payload import payload

OLD_PYTHONS = [p for v in ("3.8", "3.9", "3.12", "3.13") if (p := shutil.which(f"python{v}"))]


def works(python):
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def first_stage(root, data, python=sys.executable, **how):
    argv = bootstrap.command(str(root), python, local=True)
    return subprocess.run(argv, input=data, capture_output=True, timeout=120, check=False, **how)


@pytest.mark.parametrize("python", [sys.executable, *filter(works, OLD_PYTHONS)])
def test_the_archive_is_asked_for_once(tmp_path, python):
    first = first_stage(tmp_path / "r", payload().data, python)
    assert first.stdout.startswith(b"EDGELATHE SEND\nELA1"), first.stderr
    again = first_stage(tmp_path / "r", b"", python)
    assert again.stdout.startswith(b"ELA1")


def test_a_damaged_archive_on_the_device_is_replaced(tmp_path):
    first_stage(tmp_path / "r", payload().data)
    path = tmp_path / "r" / "agent" / f"{payload().sha256}.pyz"
    path.write_bytes(path.read_bytes()[:-1])
    assert first_stage(tmp_path / "r", payload().data).stdout.startswith(b"EDGELATHE SEND\nELA1")
    assert path.read_bytes() == payload().data


@pytest.mark.parametrize("cut", [0, 1, 1000, -1])
def test_a_cut_archive_leaves_nothing_half_written(tmp_path, cut):
    done = first_stage(tmp_path / "r", payload().data[:cut])
    assert done.stdout.splitlines()[-1].endswith(b"archive broke off")
    assert listing(tmp_path / "r" / "agent") == [".edgelathe"]


def test_wrong_bytes_are_refused(tmp_path):
    done = first_stage(tmp_path / "r", b"x" * len(payload().data))
    assert b"arrived damaged" in done.stdout
    assert listing(tmp_path / "r" / "agent") == [".edgelathe"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(DeviceError, match="holds other files; choose an empty folder"):
        bootstrap.start(LocalTransport(), bootstrap.command(str(tmp_path), None, local=True))
    assert listing(tmp_path) == ["photo.jpg"]


def test_a_root_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="file/root: Not a directory"):
        bootstrap.start(LocalTransport(), bootstrap.command(str(tmp_path / "file" / "root"), None, local=True))


@pytest.mark.parametrize("root", ["~/r", "$HOME/r"])
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "fish", "csh", "zsh"])
def test_the_shell_command_survives_login_shells_and_expands_home(tmp_path, shell, root):
    import shlex

    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    argv = bootstrap.command(root, sys.executable, local=False)
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", shlex.join(argv)], input=payload().data, capture_output=True, env=env, timeout=120, check=False
    )
    assert done.stdout.startswith(b"EDGELATHE SEND\nELA1"), done.stderr
    assert (tmp_path / "r" / "agent").is_dir()


def test_a_module_in_the_home_folder_stands_in_for_nothing(tmp_path):
    for name in ("json", "base64", "hashlib", "runpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    done = first_stage(tmp_path / "r", payload().data, cwd=tmp_path)
    assert b"ELA1" in done.stdout, done.stderr


def test_the_environment_under_the_root_comes_first(tmp_path):
    own = tmp_path / "r" / "venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    (tmp_path / "r" / "agent").mkdir()
    (tmp_path / "r" / "agent" / ".edgelathe").touch()
    own.write_text(f'#!/bin/sh\nMARK=own exec {sys.executable} "$@"\n')
    own.chmod(0o755)
    for venv, expected in ((True, "own"), (False, None)):
        argv = bootstrap.command(str(tmp_path / "r"), sys.executable, local=False, venv=venv)
        argv[6] = "import os; print(os.environ.get('MARK'))"
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == str(expected)


def test_a_broken_environment_falls_back_to_the_python_given(tmp_path):
    own = tmp_path / "r" / "venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").symlink_to("/nowhere/python3")
    argv = bootstrap.command(str(tmp_path / "r"), sys.executable, local=False)
    argv[6] = "print('here')"
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "here\n"


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false"])
def test_no_python_is_told_with_what_was_asked_for(tmp_path, python):
    with pytest.raises(NoPython, match=f"{python} is no Python 3.8 or newer there; name another with --python"):
        bootstrap.start(LocalTransport("cam"), bootstrap.command(str(tmp_path), python, local=False), python)


@pytest.mark.parametrize("noise", ["Welcome to board", "ELA", "EDGE", "\n", "E" * 5000])
def test_a_shell_that_prints_is_told_with_its_words(noise):
    argv = ["/bin/sh", "-c", f"echo '{noise}'; cat"]
    with pytest.raises(DeviceError, match=r"login shell prints '.{,60}' before the agent can speak") as caught:
        bootstrap.start(LocalTransport("cam"), argv)
    assert noise.strip()[:60] in str(caught.value)


def test_a_program_that_ends_or_says_nothing_is_told():
    with pytest.raises(DeviceError, match="did not start: no such thing"):
        bootstrap.start(LocalTransport("cam"), ["/bin/sh", "-c", "echo no such thing >&2; exit 7"])
    with pytest.raises(DeviceError, match="did not start: exit status 7"):
        bootstrap.start(LocalTransport("cam"), ["/bin/sh", "-c", "exit 7"])
    with pytest.raises(DeviceError, match="says nothing for 0 s"):
        bootstrap.start(LocalTransport("cam"), ["/bin/cat"], limit=0.1)


def test_an_archive_that_another_version_removes_meanwhile_is_asked_for_again(tmp_path):
    root = tmp_path / "r"
    first_stage(root, payload().data)
    (archive,) = (root / "agent").glob("*.pyz")
    with archive.open("rb") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)  # as `tidy` does before it removes one
        starting = pool.submit(first_stage, root, payload().data)
        assert not wait([starting], 0.5).done
        archive.unlink()
        held.close()
        assert starting.result().stdout.startswith(b"EDGELATHE SEND\nELA1")
