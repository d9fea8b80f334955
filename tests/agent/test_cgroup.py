"""On trees laid out as the kernel's cgroup-v2.rst has them; and in a real group where this user may make one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent import cgroup


def tree(root: Path, group: str, **controllers: str) -> Path:
    """A root with a process in group `group`; `controllers`: subtree_control by folder name ("top" for the mount)."""
    mount = root / "sys/fs/cgroup"
    (mount / group.strip("/")).mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{group}\n")
    for name, text in controllers.items():
        folder = mount if name == "top" else next(p for p in [*mount.rglob(name)])
        (folder / "cgroup.subtree_control").write_text(text + "\n")
    return mount


@pytest.fixture
def kernel(monkeypatch):
    """What the kernel does with a new group: it has files, and a removed one takes them along."""
    mkdir, rmdir = os.mkdir, os.rmdir

    def make(path, *args):
        mkdir(path, *args)
        for name, text in {"memory.peak": "4096", "memory.current": "4096", "cgroup.procs": ""}.items():
            Path(path, name).write_text(text)

    def remove(path):
        for file in Path(path).iterdir():
            file.unlink()
        rmdir(path)

    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "rmdir", remove)


def test_the_nearest_group_that_gives_memory_to_its_children_takes_the_new_one(tmp_path, kernel):
    mount = tree(tmp_path, "/user/app/own", top="cpu memory", user="memory pids", app="pids", own="")
    group = cgroup.make(str(tmp_path), 77)
    assert group is not None
    assert Path(group).parent == mount / "user"
    assert Path(group, "cgroup.procs").read_text() == "77"
    assert (cgroup.peak(group), cgroup.current(group)) == (4096, 4096)
    cgroup.remove(group)
    assert not Path(group).exists()


@pytest.mark.parametrize("controllers", [{}, {"top": "cpu io"}])
def test_where_no_group_counts_memory_there_is_none(tmp_path, kernel, controllers):
    mount = tree(tmp_path, "/own", **controllers)
    assert cgroup.make(str(tmp_path), 77) is None
    assert [p.name for p in mount.iterdir() if p.is_dir()] == ["own"]


def test_a_kernel_without_the_peak_leaves_no_group_behind(tmp_path):
    mount = tree(tmp_path, "/own", top="memory")
    assert cgroup.make(str(tmp_path), 77) is None
    assert [p.name for p in mount.iterdir() if p.is_dir()] == ["own"]


def test_version_1_alone_is_none(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/app\n3:cpuset:/\n")
    assert cgroup.make(str(tmp_path), 77) is None


def test_groups_of_agents_that_are_gone_are_swept_and_no_others(tmp_path):
    mount = tree(tmp_path, "/own", top="memory")
    (tmp_path / "proc/12").mkdir()
    for name in ("edgelathe-12-5", "edgelathe-13-5", "others"):
        (mount / name).mkdir()
    cgroup.sweep(str(tmp_path))
    assert sorted(p.name for p in mount.iterdir() if p.is_dir()) == ["edgelathe-12-5", "others", "own"]


def test_a_real_group_counts_a_session_and_goes_with_it(agent, linear):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        group = cgroup.make("/", sleeper.pid)
    finally:
        sleeper.communicate(b"\n")
    if group is None:
        pytest.skip("NO CONTROL GROUP (v2) MAY BE MADE HERE")
    cgroup.remove(group)
    agent.open(linear)
    agent.feed(1, x=np.ones((1, 4), np.float32))
    agent.infer(1, 1)
    assert agent.ask("close", session=1).head["peak_cgroup_bytes"] > 0
    assert not list(Path(group).parent.glob(f"edgelathe-{agent.process.pid}-*"))
