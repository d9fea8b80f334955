import time

import pytest

from edgelathe.core.errors import DeviceError
from edgelathe.device import local as local_module
from edgelathe.device.errors import ConnectionLost
from edgelathe.device.local import LocalTransport
from edgelathe.device.transport import run
from support.sshd import running


def test_output_status_and_last_words():
    done = run(LocalTransport(), ["/bin/sh", "-c", "cat; echo oops >&2; exit 3"], b"in" * 10_000)
    assert done == (3, b"in" * 10_000, "oops")


def test_a_program_that_is_not_there():
    with pytest.raises(DeviceError, match="/nowhere/python does not start: No such file"):
        LocalTransport().start(["/nowhere/python"])


def test_silence_is_a_timeout_where_a_limit_is_given(monkeypatch):
    monkeypatch.setattr(local_module, "GRACE", 0.1)
    transport = LocalTransport()
    with pytest.raises(TimeoutError):
        run(transport, ["sleep", "4711"], limit=0.05)


def test_writing_to_a_program_that_ended_is_a_lost_connection():
    transport = LocalTransport()
    channel = transport.start(["/bin/sh", "-c", "echo bye >&2"])
    channel.wait(60)
    with pytest.raises(ConnectionLost, match="the agent ended: bye"):
        channel.write(b"x" * 1_000_000)
    transport.close()


def test_a_program_that_will_not_end_is_ended_with_all_it_started(monkeypatch):
    monkeypatch.setattr(local_module, "GRACE", 0.1)
    transport = LocalTransport()
    transport.start(["/bin/sh", "-c", "sleep 47120815 & sleep 47120815 & wait; sleep 47120815"])
    assert comes_true(lambda: len(running("47120815")) >= 2)
    transport.close()
    transport.close()
    assert comes_true(lambda: not running("47120815"))


def comes_true(condition) -> bool:
    """Within a minute: processes start and end when the system finds the time."""
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.05)
    return False
