from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgelathe_agent
from edgelathe_agent.memory import Footprint, nvmap_bytes, oom_kills, rss_bytes, status

PACKAGE = Path(edgelathe_agent.__file__).parents[1]
CLIENTS = """\
CLIENT                        PROCESS      PID        SIZE
user                         gnome-sh     1834      12288K
user                           python     4711     262144K
user                           python    47110       4096K
user                           python     4711       1024K
total                                              279552K
"""


def test_gpu_memory_of_a_jetson_process_is_the_sum_of_its_clients(tmp_path):
    folder = tmp_path / "sys/kernel/debug/nvmap/iovmm"
    folder.mkdir(parents=True)
    (folder / "clients").write_text(CLIENTS)
    assert nvmap_bytes(str(tmp_path), 4711) == (262144 + 1024) * 1024
    assert nvmap_bytes(str(tmp_path), 1) == 0
    assert nvmap_bytes(str(tmp_path / "none"), 4711) is None


def test_the_kernels_figures_are_there():
    assert rss_bytes(os.getpid()) > 1e6
    assert status("VmHWM") >= status("VmRSS") > 1e6
    assert status("Nothing") is None
    assert rss_bytes(1 << 30) is None
    assert oom_kills() is None or oom_kills() >= 0


PEAKS = """\
import json
from edgelathe_agent.memory import Footprint
footprint = Footprint(None)
before = b"1" * 96_000_000
del before
footprint.begin()
short = b"1" * 40_000_000
del short
footprint.note()
print(json.dumps(footprint.to_json()))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="THE KERNEL KEEPS NO PEAK TO RESET")
def test_a_peak_between_begin_and_note_counts_and_one_before_does_not():
    # In a small process: a large one may lose as much meanwhile as what is looked for.
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True, env=env)
    peaks = json.loads(done.stdout)
    assert 38e6 < peaks["peak_bytes"] < 60e6
    assert peaks["peak_pss_bytes"] is None or 30e6 < peaks["peak_pss_bytes"] <= peaks["peak_bytes"] + 10e6
    assert peaks["peak_cgroup_bytes"] is None


def test_gpu_memory_is_the_most_that_was_noted_and_null_where_nobody_knows():
    footprint = Footprint(None)
    for held in (100, 300, 200):
        footprint.note(lambda held=held: held)
    assert footprint.to_json()["gpu_bytes"] == 300
    unknown = Footprint(None)
    unknown.note()
    assert unknown.to_json()["gpu_bytes"] in (None, 0)
