"""The ssh transport, on paramiko: one connection, one channel a program."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgelathe.device import hostkeys
from edgelathe.device.auth import login
from edgelathe.device.errors import lost, translated
from edgelathe.device.hostkeys import HostKey
from edgelathe.device.sshconfig import Endpoint

if TYPE_CHECKING:
    from edgelathe.device.transport import Channel

#: Silence after which the link is asked whether it is alive, and how long it may take to answer.
KEEPALIVE_SECONDS, PING_SECONDS = 15.0, 30.0
BANNER_SECONDS, AUTH_SECONDS, CHANNEL_SECONDS = 15.0, 30.0, 15.0
#: What the device may send before it waits for us: two seconds of 1 Gb/s at 100 ms and more.
WINDOW = 1 << 26
#: AES-GCM first: cipher and integrity in one pass through hardware. With AES-CTR the HMAC costs half of the rate.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")

Verify = Callable[[Endpoint, HostKey], None]
"""Raises a DeviceError unless the key is the endpoint's own."""

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its errors are raised, none is to be printed


class SshTransport:
    """A logged-in connection to an endpoint, through its jump hosts. Raises DeviceError where any step fails."""

    def __init__(self, name: str, endpoint: Endpoint, verify: Verify) -> None:
        self.name, self.endpoint = name, endpoint
        self._links: list[Any] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        try:
            self._connect(verify)
        except BaseException:
            self.close()
            raise

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program there, through the user's login shell."""
        with self._translated(self.endpoint):
            channel = self._links[-1].open_session(timeout=CHANNEL_SECONDS)
            channel.settimeout(KEEPALIVE_SECONDS)
            channel.exec_command(shlex.join(argv))
        return SshChannel(self, channel)

    def alive(self) -> bool:
        """Whether the other side still answers, within PING_SECONDS; where it does not the connection is closed."""
        link = self._links[-1] if self._links else None
        if link is None or not link.is_active():
            return False
        asked = threading.Thread(target=_ask, args=(link,), daemon=True)
        asked.start()
        asked.join(PING_SECONDS)
        if asked.is_alive():
            self.close()  # ends the thread too: it waits for an active link only
            asked.join()
            return False
        return bool(link.is_active())

    def close(self) -> None:
        """Close every hop, the last first, and wait for their threads."""
        for link in reversed(self._links):
            end(link)
        self._links.clear()
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None

    def _connect(self, verify: Verify) -> None:
        hops = (*self.endpoint.jumps, self.endpoint)
        for hop in hops:
            with self._translated(hop):
                link = handshake(self._socket(hop), hop, verify, self._links)
                login(link, hop, self.name)
                link.set_keepalive(int(KEEPALIVE_SECONDS))

    def _socket(self, hop: Endpoint) -> Any:
        if self._links:
            return self._links[-1].open_channel(
                "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=hop.connect_seconds
            )
        if hop.proxy_command:
            ours, theirs = socket.socketpair()
            with theirs:  # quiet: what it prints belongs to no stream of ours
                self._proxy = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {hop.proxy_command}"],
                    stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            return ours
        return dial(hop)

    def _translated(self, hop: Endpoint) -> contextlib.AbstractContextManager[None]:
        return translated(self.name, host=hop.host, port=hop.port, user=hop.user)


class SshChannel:
    """The streams of one program at the other end of a connection."""

    def __init__(self, transport: SshTransport, channel: Any) -> None:
        self._transport, self._channel = transport, channel
        self._packet = max(1024, channel.out_max_packet_size - 64)

    def read(self, size: int, limit: float | None = None) -> bytes:
        """See Channel. Without a limit, silence makes the link be asked whether it is alive."""
        while True:
            self._channel.settimeout(limit or KEEPALIVE_SECONDS)
            try:
                data: bytes = self._channel.recv(size)
                return data
            except TimeoutError:
                self._still_there(limit)
            except (OSError, EOFError) as e:
                raise lost(self._transport.name) from e

    def write(self, data: bytes | memoryview) -> None:
        """See Channel. Cut to packets here, since paramiko's sendall copies all the rest for each packet."""
        view = memoryview(data)
        while view:
            try:
                sent = self._channel.send(bytes(view[: self._packet]))
            except TimeoutError:
                self._still_there(None)
                continue
            except (OSError, EOFError) as e:  # EOFError: paramiko's word for a socket that takes no more
                raise lost(self._transport.name) from e
            if sent == 0:
                raise lost(self._transport.name)
            view = view[sent:]

    def close_input(self) -> None:
        """See Channel."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def wait(self, limit: float) -> int | None:
        """See Channel."""
        if not self._channel.status_event.wait(limit):
            return None
        code = self._channel.exit_status
        return None if code < 0 else int(code)

    def last_words(self) -> str:
        """See Channel."""
        words = b""
        while self._channel.recv_stderr_ready():
            words = (words + self._channel.recv_stderr(1 << 16))[-2000:]
        return words.decode(errors="replace").strip()

    def close(self) -> None:
        """See Channel: the device's sshd closes the program's input, which ends the agent."""
        with contextlib.suppress(Exception):  # a link that broke cannot say goodbye, and is as good as closed
            self._channel.close()

    def _still_there(self, limit: float | None) -> None:
        if limit is not None:
            raise TimeoutError
        if not self._transport.alive():
            raise lost(self._transport.name, f"no answer for {KEEPALIVE_SECONDS + PING_SECONDS:.0f} s")


class _Seen(Exception):  # noqa: N818  # no error: it brings the key
    """Ends a connection that was made to look at the host key."""

    def __init__(self, key: HostKey) -> None:
        super().__init__()
        self.key = key


def look(name: str, endpoint: Endpoint) -> HostKey:
    """The host key that an endpoint shows, without logging in there. Its jump hosts have to be known."""

    def verify(hop: Endpoint, key: HostKey) -> None:
        if hop is endpoint:
            raise _Seen(key)
        hostkeys.check(hop, key, f"{name}: jump host {hop.alias}")

    try:
        SshTransport(name, endpoint, verify).close()
    except _Seen as seen:
        return seen.key
    raise AssertionError("every connection shows a key")


def dial(hop: Endpoint) -> socket.socket:
    """A TCP connection. Its unanswered bytes break it after a minute instead of the system's quarter of an hour."""
    sock = socket.create_connection((hop.host, hop.port), hop.connect_seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return sock


def handshake(sock: Any, hop: Endpoint, verify: Verify, links: list[Any]) -> Any:
    """Agree on ciphers and verify the host key over `sock`; the link is in `links` as soon as it has to be closed."""
    import paramiko

    try:
        link = paramiko.Transport(sock, default_window_size=WINDOW)
    except BaseException:
        sock.close()
        raise
    links.append(link)
    link.daemon = True
    link.banner_timeout, link.handshake_timeout = BANNER_SECONDS, BANNER_SECONDS
    link.auth_timeout, link.channel_timeout = AUTH_SECONDS, CHANNEL_SECONDS
    options = link.get_security_options()
    options.ciphers = CIPHERS
    options.key_types = _known_first(options.key_types, hostkeys.known_types(hop))
    link.use_compression(hop.compress)  # zlib, once logged in; a server without it is spoken to as it is
    link.start_client(timeout=BANNER_SECONDS)
    if not link.initial_kex_done:
        raise TimeoutError("no answer")
    key = link.get_remote_server_key()
    verify(hop, HostKey(key.get_name(), key.asbytes()))
    return link


def end(link: Any) -> None:
    """Close a link and wait for its thread; also the timer of a handshake that never completed, which would linger."""
    link.close()
    link.packetizer.complete_handshake()
    if link.is_alive():
        link.join(5)


def _ask(link: Any) -> None:
    with contextlib.suppress(Exception):  # whatever it raises, the link is dead, and that is looked at
        link.global_request("keepalive@openssh.com", wait=True)


def _known_first(offered: Sequence[str], known: Sequence[str]) -> list[str]:
    """Host key algorithms in the order of preference, those with a known key in front."""
    kinds = {"rsa-sha2-512": "ssh-rsa", "rsa-sha2-256": "ssh-rsa"}
    return sorted(offered, key=lambda name: kinds.get(name, name) not in known)
