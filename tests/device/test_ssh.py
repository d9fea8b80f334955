"""Connections through a real sshd, and each way in which one fails."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from edgelathe.core.device import Target
from edgelathe.core.errors import DeviceError, UserError
from edgelathe.device import ssh as ssh_module
from edgelathe.device.errors import ChangedHostKey, ConnectionLost, UnknownHostKey
from edgelathe.device.open import connect, open_device
from edgelathe.device.transport import run
from edgelathe.device.trust import trust
from support.sshd import children, fingerprint, keygen, sshd

#: A ProxyCommand: its standard streams are a connection to host and port.
LINK = """
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pour():
    while data := link.recv(65536):
        os.write(1, data)
threading.Thread(target=pour, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data)
"""


def fails(target, match, kind=DeviceError):
    with pytest.raises(kind, match=match) as caught:
        connect(target).close()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


def echo(target):
    transport = connect(target)
    try:
        return run(transport, ["cat"], b"there and back").out
    finally:
        transport.close()


def test_arguments_arrive_as_they_are(board):
    transport = connect(board)
    try:
        words = ["a b", "$HOME", "it's", "*", "", 'double "quotes"', "back\\slash", "ü"]
        done = run(transport, ["/bin/sh", "-c", 'for w; do echo "$w"; done; echo oops >&2; exit 3', "sh", *words])
    finally:
        transport.close()
    assert done.out.decode().split("\n")[:-1] == words
    assert (done.code, done.err) == (3, "oops")


def test_the_agent_answers_over_ssh(board, server):
    with open_device(board) as device:
        assert device.client.hello["root"] == board.root
        assert device.name == "board"
        assert server.connections() == 1
    assert device.client.usable is False


class Counted:
    """A socket that counts what is sent."""

    def __init__(self, sock):
        self._sock, self.sent = sock, 0

    def send(self, data):
        done = self._sock.send(data)
        self.sent += done
        return done

    def __getattr__(self, name):
        return getattr(self._sock, name)


@pytest.mark.parametrize("line", ["Compression yes", "Compression no"])
def test_compression_of_the_ssh_config_deflates_what_is_sent(board, server, monkeypatch, line):
    made, dial = [], ssh_module.dial
    monkeypatch.setattr(ssh_module, "dial", lambda hop: made.append(Counted(dial(hop))) or made[-1])
    server.configure(line)
    data = b"weights " * (1 << 16)
    transport = connect(board)
    try:
        assert int(run(transport, ["wc", "-c"], data).out) == len(data)
    finally:
        transport.close()
    assert (made[0].sent < len(data) / 10) == line.endswith("yes")


class TestHostKeys:
    def test_an_unknown_key_is_refused_strictly_and_says_how_to_accept_it(self, board, server):
        server.known_hosts.unlink()
        assert server.fingerprint in fails(board, "host key .* is not known", UnknownHostKey)

    def test_the_right_fingerprint_is_accepted_once_for_all(self, board, server):
        server.known_hosts.unlink()
        added = trust(replace(board, fingerprint=server.fingerprint))
        assert added.fingerprint == server.fingerprint
        assert server.known_hosts.read_text() == server.host_line()
        assert echo(board) == b"there and back"
        assert trust(board).fingerprint == server.fingerprint
        assert server.known_hosts.read_text() == server.host_line()

    def test_a_wrong_fingerprint_accepts_nothing_even_of_a_known_host(self, board, server):
        wrong = server.fingerprint[:-2] + ("BB" if server.fingerprint.endswith("AA") else "AA")
        for known in (True, False):
            if not known:
                server.known_hosts.unlink()
            with pytest.raises(ChangedHostKey, match=r"host key .* not SHA256"):
                trust(replace(board, fingerprint=wrong))
        assert not server.known_hosts.exists()
        with pytest.raises(UserError, match="not a SHA256 fingerprint"):
            trust(replace(board, fingerprint="SHA256:short"))

    def test_the_user_is_asked_where_one_can_be(self, board, server):
        server.known_hosts.unlink()
        shown = []

        def confirm(answer):
            return lambda key, endpoint: shown.append((key.fingerprint, endpoint.alias)) or answer

        with pytest.raises(UnknownHostKey):
            trust(board, confirm=confirm(False))
        with pytest.raises(UnknownHostKey):
            trust(board)
        assert trust(board, confirm=confirm(True)).fingerprint == server.fingerprint
        assert shown == [(server.fingerprint, "board")] * 2

    def test_a_changed_key_is_refused(self, board, server, tmp_path):
        keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
        kind, blob = (tmp_path / "other.pub").read_text().split()[:2]
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {blob}\n")
        text = fails(board, "host key .* changed", ChangedHostKey)
        assert fingerprint(tmp_path / "other.pub") in text
        assert f"{server.known_hosts}:1" in text
        with pytest.raises(ChangedHostKey):
            trust(replace(board, fingerprint=server.fingerprint))

    def test_looking_at_the_key_logs_in_nowhere(self, board, server, tmp_path):
        server.configure(f"IdentityFile {tmp_path}/none")
        server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "none")))
        assert trust(board).fingerprint == server.fingerprint


class TestLogin:
    def test_a_refused_key_is_told_with_what_was_tried(self, board, server, tmp_path):
        keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger"))
        server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "stranger")))
        text = fails(board, "login as .* refused, tried .*stranger; run `ssh-copy-id")
        assert f"-p {server.port}" in text

    def test_no_key_at_all(self, board, server, tmp_path):
        server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "none")))
        fails(board, "no key to log in .* make one with `ssh-keygen`")

    def test_a_key_with_a_passphrase_wants_the_ssh_agent(self, board, server, tmp_path):
        keygen("-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked"))
        server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "locked")))
        fails(board, "locked needs its passphrase; add it to the ssh agent with `ssh-add .*locked`")

    def test_a_key_file_that_is_none(self, board, server, tmp_path):
        (tmp_path / "text").write_text("no key")
        server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "text")))
        fails(board, "text: not a private key")

    def test_the_ssh_agent_lends_a_locked_key(self, board, server, tmp_path, monkeypatch):
        if not shutil.which("ssh-agent"):
            pytest.skip("no ssh-agent here")
        key = tmp_path / "key"
        shutil.copy(server.key, key)
        shutil.copy(f"{server.key}.pub", f"{key}.pub")
        sock = tmp_path / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
        try:
            while not sock.exists():
                assert agent.poll() is None
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=os.environ, capture_output=True)
            keygen("-p", "-N", "secret", "-f", str(key))
            server.config.write_text(server.config.read_text().replace(str(server.key), str(key)))
            assert echo(board) == b"there and back"
        finally:
            agent.terminate()
            agent.wait()


class TestNetwork:
    def test_refused(self, monkeypatch):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        fails(Target("cam", f"ssh://pi@127.0.0.1:{port}"), f"^cam: connection refused at 127.0.0.1:{port}; ")

    def test_unknown_name(self):
        fails(Target("cam", "ssh://pi@no-such-host.invalid"), "^cam: the name no-such-host.invalid is unknown")

    def test_silence(self, server, board, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as s:
            monkeypatch.setattr(ssh_module, "BANNER_SECONDS", 0.3)
            fails(
                Target("cam", f"ssh://pi@127.0.0.1:{s.getsockname()[1]}"),
                "does not answer like an ssh server|no answer",
            )

    def test_another_service(self, board):
        with socket.create_server(("127.0.0.1", 0)) as s:

            def answer():
                connection, _ = s.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 200)
                    connection.recv(1000)

            thread = threading.Thread(target=answer)
            thread.start()
            fails(Target("cam", f"ssh://pi@127.0.0.1:{s.getsockname()[1]}"), "does not answer like an ssh server")
            thread.join()

    def test_a_shell_that_prints(self, tmp_path, monkeypatch):
        noisy = 'ForceCommand echo "Welcome to board"; eval "$SSH_ORIGINAL_COMMAND"'
        with sshd(tmp_path / "noisy", options=noisy) as server:
            server.trust()
            monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(server.config))
            with pytest.raises(DeviceError, match="its login shell prints 'Welcome to board' before"):
                open_device(Target("board", "ssh://board", root=str(tmp_path / "root")))

    def test_a_cut_connection_is_recognised(self, board, server):
        with open_device(board) as device:
            server.cut()
            with pytest.raises(ConnectionLost, match=r"^board: .*--resume"):
                device.sense()
            with pytest.raises(ConnectionLost):
                device.push(b"more")

    def test_a_silent_link_is_asked_and_given_up(self, board, server, monkeypatch):
        monkeypatch.setattr(ssh_module, "KEEPALIVE_SECONDS", 0.2)
        monkeypatch.setattr(ssh_module, "PING_SECONDS", 0.3)
        transport = connect(board)
        try:
            channel = transport.start(["sleep", "60"])
            assert transport.alive()
            stopped = children(server.process.pid)
            for pid in stopped:
                os.kill(pid, 19)  # SIGSTOP: the connection is there and says nothing
            with pytest.raises(ConnectionLost, match="no answer for"):
                channel.read(1)
        finally:
            transport.close()
            server.cut()

    def test_a_slow_answer_is_waited_for(self, board, monkeypatch):
        monkeypatch.setattr(ssh_module, "KEEPALIVE_SECONDS", 0.1)
        transport = connect(board)
        try:
            assert transport.start(["/bin/sh", "-c", "sleep 0.5; echo done"]).read(100) == b"done\n"
        finally:
            transport.close()


class TestJumps:
    @pytest.fixture
    def gate(self, tmp_path):
        with sshd(tmp_path / "gate", name="gate") as running:
            running.trust()
            yield running

    def test_through_one_and_two_hosts(self, board, server, gate, monkeypatch):
        for jumps in ("gate", "gate,again"):
            server.configure(f"ProxyJump {jumps}")
            again = gate.section("HostKeyAlias again").replace("Host gate", "Host again")
            server.config.write_text(server.config.read_text() + gate.section() + again)
            gate.known_hosts.write_text(gate.host_line() + "again " + gate.host_line().split(" ", 1)[1])
            with open_device(board) as device:
                data = os.urandom(3_000_000)
                device.push(data)
                assert device.client.sent_bytes == len(data)
                assert gate.connections() == 1 + (jumps != "gate")
                device.client.request("remove", {"sha256": [device.push(data)]})

    def test_an_unknown_jump_host_is_named(self, board, server, gate):
        server.configure("ProxyJump gate")
        server.config.write_text(server.config.read_text() + gate.section())
        gate.known_hosts.unlink()
        fails(board, "^board: jump host gate: the host key .* is not known", UnknownHostKey)
        with pytest.raises(UnknownHostKey, match="jump host gate"):
            trust(replace(board, fingerprint=server.fingerprint))

    def test_a_jump_host_that_reaches_nothing(self, board, server, gate):
        server.configure("ProxyJump gate")
        server.config.write_text(server.config.read_text().replace(str(server.port), "1") + gate.section())
        fails(board, "opened no channel")

    def test_by_a_proxy_command(self, board, server, tmp_path):
        (tmp_path / "link.py").write_text(LINK)
        server.configure(f"ProxyCommand {sys.executable} {tmp_path}/link.py %h %p")
        assert echo(board) == b"there and back"
        server.configure("ProxyCommand false")
        fails(board, "does not answer like an ssh server|the connection was lost")
