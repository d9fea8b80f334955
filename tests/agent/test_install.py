from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgelathe_agent.install import install, layout, target, unpack
from edgelathe_agent.protocol import AgentError


def wheel(path: Path, files: dict[str, str], executable: str = "") -> bytes:
    with zipfile.ZipFile(path, "w") as z:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name == executable else 0o644) << 16
            z.writestr(info, text)
    return path.read_bytes()


@pytest.fixture
def toy(tmp_path) -> bytes:
    """A wheel with a module, a script, and one of each folder of data."""
    return wheel(
        tmp_path / "toy.whl",
        {
            "toy/__init__.py": "__version__ = '7'\n",
            "toy-7.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 7\n",
            "toy-7.data/platlib/toy/extra.py": "x = 1\n",
            "toy-7.data/purelib/toy/pure.py": "x = 2\n",
            "toy-7.data/scripts/toy": "#!python\nimport toy\nprint(toy.__version__)\n",
            "toy-7.data/data/share/toy.txt": "hi",
            "toy-7.data/headers/toy.h": "int x;",
            "toy/tool.sh": "exit 0",
        },
        "toy/tool.sh",
    )


def test_wheels_become_an_environment_whose_python_runs_them(agent, toy, tmp_path):
    wheels = [{"name": "toy-7-py3-none-any.whl", "sha256": agent.put(toy)}]
    python = agent.ask("install", requirements=[], wheels=wheels).head["python"]
    root = tmp_path / "root"
    assert python == str(root / "venv" / "bin" / "python")
    code = "import sys, toy.extra, toy.pure; print(toy.__version__, sys.prefix)"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "7"
    assert Path(out[1]).resolve() == root / "venvs" / "1"
    script = subprocess.run([root / "venv" / "bin" / "toy"], capture_output=True, text=True, check=True)
    assert script.stdout == "7\n"
    assert (root / "venv" / "share" / "toy.txt").read_text() == "hi"
    assert not list(root.rglob("toy.h"))
    (tool,) = root.rglob("tool.sh")
    assert os.access(tool, os.X_OK)
    assert any("toy-7" in e for e in agent.events)


def test_children_use_the_new_environment_at_once(agent, linear, toy):
    before = agent.ask("probe").head
    python = agent.ask("install", requirements=[], wheels=[{"name": "toy.whl", "sha256": agent.put(toy)}]).head[
        "python"
    ]
    after = agent.ask("probe").head
    assert (before["executable"], after["executable"]) == (sys.executable, python)
    assert before["runtimes"]
    assert after["runtimes"] == []
    error = agent.refused("open", model=agent.put(linear))
    assert error["kind"] == "missing"
    assert "device install" in error["mend"]


def test_a_second_installation_takes_the_place_of_the_first(agent, toy, tmp_path):
    wheels = [{"name": "toy.whl", "sha256": agent.put(toy)}]
    for _ in range(2):
        agent.ask("install", requirements=[], wheels=wheels)
    assert [p.name for p in (tmp_path / "root" / "venvs").iterdir()] == ["2"]
    assert (tmp_path / "root" / "venv").resolve().name == "2"


def test_an_installation_that_fails_leaves_the_live_one(agent, toy, tmp_path):
    agent.ask("install", requirements=[], wheels=[{"name": "toy.whl", "sha256": agent.put(toy)}])
    error = agent.refused("install", requirements=[], wheels=[{"name": "bad.whl", "sha256": agent.put(b"PK no zip")}])
    assert (error["kind"], "bad.whl is no wheel" in error["what"]) == ("install", True)
    assert [p.name for p in (tmp_path / "root" / "venvs").iterdir()] == ["1"]
    code = "import toy; print(toy.__version__)"
    out = subprocess.run([tmp_path / "root" / "venv" / "bin" / "python", "-c", code], capture_output=True, check=True)
    assert out.stdout == b"7\n"


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/evil", "a/../../evil", "a//b", "a\\..\\evil", "toy-7.data/scripts/../../evil", "./a", "a/\0b"],
)
def test_a_wheel_cannot_write_outside(tmp_path, name):
    venv = layout(str(tmp_path / "venv"))
    with pytest.raises(AgentError) as e:
        target(name, venv)
    assert e.value.kind == "install"


def test_a_hostile_wheel_writes_nothing_at_all(tmp_path):
    data = wheel(tmp_path / "evil.whl", {"good.py": "", "../../evil.py": "x"})
    assert data
    with pytest.raises(AgentError):
        unpack(str(tmp_path / "evil.whl"), "evil.whl", layout(str(tmp_path / "venv")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.whl"]


def test_an_environment_on_a_full_disk_is_a_want_of_space(tmp_path, toy, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    try:
        agent = start(root=disk / "root")
        big = wheel(tmp_path / "big.whl", {"big.py": "#" * 150_000})
        wheels = [{"name": "big.whl", "sha256": agent.put(big)}]
        error = agent.refused("install", requirements=[], wheels=wheels)
        assert error["kind"] == "space"
        assert not list((disk / "root" / "venvs").iterdir())
        agent.ask("wipe")
    finally:
        agent.process.kill()
        agent.process.wait()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"requirements": ["--index-url=x"], "wheels": []},
        {"requirements": ["git+https://example.org/x"], "wheels": []},
        {"requirements": ["./here"], "wheels": []},
        {"requirements": [7], "wheels": []},
        {"requirements": [], "wheels": [{"name": "../x.whl", "sha256": "0" * 64}]},
        {"requirements": [], "wheels": ["x.whl"]},
    ],
)
def test_what_is_no_requirement_or_wheel_is_refused(agent, fields):
    assert agent.refused("install", **fields)["kind"] == "request"


@pytest.fixture
def index(tmp_path) -> Path:
    """A folder that stands for the device's index, so that nothing is fetched."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder / "toy-7-py3-none-any.whl", {
        "toy/__init__.py": "__version__ = '7'\n",
        "toy-7.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 7\n",
        "toy-7.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "toy-7.dist-info/RECORD": "",
    })  # fmt: skip
    return folder


def bundled_pip() -> Path:
    import ensurepip

    found = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not found:
        pytest.skip("this Python bundles no pip wheel")
    return found[0]


def test_requirements_go_through_pip_and_its_reason_comes_back(start, tmp_path, index):
    agent = start(env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "HOME": str(tmp_path / "home")})
    pip = bundled_pip()
    wheels = [{"name": pip.name, "sha256": agent.put(pip.read_bytes())}]
    python = agent.ask("install", requirements=["toy==7"], wheels=wheels).head["python"]
    out = subprocess.run([python, "-c", "import toy; print(toy.__version__)"], capture_output=True, check=True)
    assert out.stdout == b"7\n"
    assert any("Successfully installed toy-7" in e for e in agent.events)
    error = agent.refused("install", requirements=["toy==8"], wheels=wheels)
    assert error["kind"] == "install"
    assert "toy==8" in error["what"]
    assert "--wheels" in error["mend"]
    assert not (tmp_path / "root" / "tmp").exists()
    assert not (tmp_path / "home" / ".cache").exists()


@pytest.mark.slow
def test_requirements_alone_take_the_pip_that_python_brings(start, index):
    agent = start(env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)})
    python = agent.ask("install", requirements=["toy==7"], wheels=[]).head["python"]
    out = subprocess.run([python, "-c", "import toy; print(toy.__version__)"], capture_output=True, check=True)
    assert out.stdout == b"7\n"


@pytest.mark.slow
def test_the_pip_of_the_system_serves_where_ensurepip_is_missing(tmp_path, index, monkeypatch):
    from edgelathe_agent import install as module
    from edgelathe_agent.jobs import Jobs

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    read, write = os.pipe()
    jobs = Jobs(read)
    if module._system_pip(Quiet(tmp_path, jobs)) < (22, 3):
        pytest.skip("this Python has no pip of 22.3 or later")
    python = install(Quiet(tmp_path, jobs), ["toy==7"], [])
    out = subprocess.run([python, "-c", "import toy; print(toy.__version__)"], capture_output=True, check=True)
    assert out.stdout == b"7\n"
    os.close(read)
    os.close(write)


class Quiet:
    """Just what `install` asks of an agent, to take the Python's own tools away from it."""

    def __init__(self, root, jobs):
        self.root, self.jobs, self.store = str(root), jobs, None

    def event(self, what):
        pass


def test_a_python_without_pip_and_ensurepip_names_the_mend(tmp_path, monkeypatch):
    from edgelathe_agent import install as module
    from edgelathe_agent.jobs import Jobs

    read, write = os.pipe()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(module, "_system_pip", lambda _: ())
    try:
        with pytest.raises(AgentError) as e:
            install(Quiet(tmp_path, Jobs(read)), ["toy==7"], [])
    finally:
        os.close(read)
        os.close(write)
    assert e.value.kind == "install"
    assert "apt install python3-venv" in e.value.mend
    assert list((tmp_path / "venvs").iterdir()) == []
    assert not (tmp_path / "venv").exists()
