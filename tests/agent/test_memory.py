from __future__ import annotations

import os

import numpy as np
import pytest

from edgelathe_agent.memory import Footprint, nvmap_bytes, oom_kills, rss_bytes, status

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


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="THE KERNEL KEEPS NO PEAK TO RESET")
def test_a_peak_between_begin_and_note_counts_and_one_before_does_not():
    footprint = Footprint(None)
    before = np.ones(12_000_000)  # 96 MB
    del before
    footprint.begin()
    short = np.ones(5_000_000)  # 40 MB
    del short
    footprint.note()
    peaks = footprint.to_json()
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
