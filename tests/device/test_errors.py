import errno
import socket

import paramiko
import pytest

from edgelathe.core.errors import DeviceError
from edgelathe.device.errors import ConnectionLost, translate, translated
from edgelathe_agent.framing import ProtocolError


def say(error):
    return translate(error, device="cam", host="10.0.0.7", port=22, user="pi")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "connection refused at 10.0.0.7:22"),
        (OSError(errno.EHOSTUNREACH, "no route"), "no route to 10.0.0.7:22"),
        (TimeoutError("timed out"), "no answer from 10.0.0.7:22"),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), "the name 10.0.0.7 is unknown: Name not known"),
        (paramiko.AuthenticationException("failed"), "login as pi refused: failed"),
        (paramiko.BadAuthenticationType("no", ["password"]), "login as pi with a key is not allowed, only password"),
        (paramiko.ChannelException(2, "Connect failed"), "opened no channel"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "does not answer like an ssh server"),
        (paramiko.SSHException("something"), "something"),
        (paramiko.IncompatiblePeer("no kex"), "no common ssh algorithm"),
        (ProtocolError("not a frame"), "not a frame"),
    ],
)
def test_foreign_errors_become_one_line_with_a_mend(error, words):
    got = say(error)
    assert type(got) is DeviceError
    assert str(got).startswith("cam: ")
    assert words in got.what
    assert got.mend
    assert "{" not in str(got)


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        ConnectionResetError(errno.ECONNRESET, "x"),
        BrokenPipeError(errno.EPIPE, "x"),
        OSError(errno.EBADF, "x"),
    ],
)
def test_a_broken_link_is_a_lost_connection(error):
    assert isinstance(say(error), ConnectionLost)


def test_device_errors_and_interrupts_pass_through():
    own = DeviceError("cam", "a", "b")
    assert say(own) is own
    with pytest.raises(KeyboardInterrupt), translated("cam"):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), translated("cam"):  # a bug of ours is not the device's fault
        raise ZeroDivisionError
