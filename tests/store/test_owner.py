"""Whether the process that works on a run still lives."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edgelathe.store.owner import SILENCE, Owner, _start

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)


def test_this_process_lives():
    assert not Owner.here().gone(NOW, NOW)
    assert Owner(**Owner.here().to_json()) == Owner.here()


def test_a_later_process_with_the_same_id_is_another():
    me = Owner.here()
    if me.start is None:
        pytest.skip("no start times without /proc")
    assert replace(me, start="boot:1").gone(NOW, NOW)


def test_a_dead_and_an_unreaped_process_are_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner(platform.node(), child.pid, _start(child.pid))
    assert not owner.gone(NOW, NOW)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    if owner.start is not None:
        assert owner.gone(NOW, NOW)
    child.communicate()
    assert owner.gone(NOW, NOW)


def test_a_process_on_another_host_is_given_up_after_long_silence():
    far = Owner("elsewhere", 1, None)
    assert not far.gone(NOW, NOW + SILENCE)
    assert far.gone(NOW, NOW + SILENCE + timedelta(seconds=1))
