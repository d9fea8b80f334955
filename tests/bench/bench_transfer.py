"""Getting files to a device against scp as a user runs it: the same file, the same sshd, in turns, medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgelathe.core.device import Target
from edgelathe.device.open import open_device
from edgelathe.device.ssh import SshTransport
from edgelathe.device.sshconfig import SshConfig
from support.sshd import Sshd, available, sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bench
ROUNDS = 7


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    if not available():
        pytest.skip("NO SSHD: run `make system-deps`")
    with sshd(tmp_path / "ssh") as running:
        running.trust()
        monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(running.config))
        yield running


def board(tmp_path: Path) -> Target:
    return Target("board", "ssh://board", root=str(tmp_path / "root"), python=sys.executable)


def test_agent_ready(server: Sshd, tmp_path: Path) -> None:
    """From nothing to an agent that answers, its archive being there."""
    target, seconds = board(tmp_path), []
    open_device(target).close()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with open_device(target) as device:
            device.client.request("have", {"sha256": []})
            seconds.append(time.perf_counter() - begun)
    worst = f"worst of {ROUNDS} {max(seconds):.3f} s"
    print(f"\nagent ready over ssh: {statistics.median(seconds):.3f} s (goal < 1 s), {worst}")


@pytest.mark.parametrize("megabytes", [8, 64, 256])
def test_push_against_scp(server: Sshd, tmp_path: Path, megabytes: int) -> None:
    """A first push with its connection, against scp with its own; the stream alone; and a second push."""
    target, file, copy = board(tmp_path), tmp_path / "file", tmp_path / "copy"
    open_device(target).close()
    ours, theirs, streams, again = [], [], [], []
    for _ in range(ROUNDS):
        file.write_bytes(np.random.default_rng().bytes(megabytes * 1_000_000))
        size = file.stat().st_size
        begun = time.perf_counter()
        subprocess.run(["scp", "-q", "-F", str(server.config), str(file), f"board:{copy}"], check=True)
        theirs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with open_device(target) as device:
            pushing = time.perf_counter()
            sha = device.push(file)
            pushed = time.perf_counter()
            assert device.client.sent_bytes == size
            ours.append(pushed - begun)
            streams.append(pushed - pushing)
            device.push(file)
            again.append(time.perf_counter() - pushed)
            assert device.client.sent_bytes == size
            device.client.request("remove", {"sha256": [sha]})
        copy.unlink()
    rate = [megabytes / statistics.median(t) for t in (ours, theirs, streams)]
    paired = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"\n{megabytes} MB: push {rate[0]:.0f} MB/s with its connection, scp {rate[1]:.0f} MB/s: "
        f"{paired:.2f}x (goal 0.8x); "
        f"stream alone {rate[2]:.0f} MB/s; second push 0 bytes in {1000 * statistics.median(again):.0f} ms"
    )


def test_ciphers(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare channel into /dev/null, by cipher: why AES-GCM comes first."""
    from edgelathe.device import ssh

    data, lines = os.urandom(1 << 20), []
    for cipher in ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"):
        monkeypatch.setattr(ssh, "CIPHERS", (cipher,))
        transport = SshTransport("board", SshConfig().endpoint("ssh://board"), lambda hop, key: None)
        try:
            channel = transport.start(["/bin/sh", "-c", "cat >/dev/null; echo done"])
            begun = time.perf_counter()
            for _ in range(128):
                channel.write(data)
            channel.close_input()
            assert channel.read(100) == b"done\n"
            lines.append(f"{cipher} {128 * len(data) / 1e6 / (time.perf_counter() - begun):.0f} MB/s")
        finally:
            transport.close()
    print("\nchannel: " + ", ".join(lines))
