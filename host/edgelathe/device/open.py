"""One open device, and how a name that the user gave becomes one."""

from __future__ import annotations

import hashlib
import mmap
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.device import Probe, SessionOptions, Target
from edgelathe.core.errors import DeviceError, UserError, nearest
from edgelathe.core.files import data_dir
from edgelathe.device import bootstrap, hostkeys
from edgelathe.device.client import AgentClient, Content
from edgelathe.device.errors import AgentRefusal, Progress
from edgelathe.device.local import LocalTransport
from edgelathe.device.probe import from_answer
from edgelathe.device.session import CALL_SECONDS, Limits, Named, Session, demand
from edgelathe.device.sshconfig import Endpoint, SshConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from edgelathe.device.transport import Transport
    from edgelathe.model.types import Model

LOCAL = Target("local", "local")


class Device:
    """A device whose agent runs. A context manager: closing it ends the agent and the link.

    Attributes:
        name: as the user named it.
        target: how it is reached.
        client: the agent.
        call_seconds: what a model may take to answer before it is ended.
    """

    def __init__(self, target: Target, transport: Transport, client: AgentClient) -> None:
        self.name, self.target, self.client = target.name, target, client
        self.call_seconds = CALL_SECONDS
        self._transport = transport
        self._arrays: dict[int, tuple[NDArray[np.generic], str]] = {}  # the array too: its id is reused after it

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent and the link; may be called again."""
        self.client.close()
        self._transport.close()

    @cached_property
    def probe(self) -> Probe:
        """What the device is; asked once."""
        agent = {"agent": self.client.hello.get("agent")}
        return from_answer(self.name, {**agent, **self.client.request("probe").head}, self.target.profile)

    def sense(self) -> Mapping[str, Any]:
        """Clocks, temperatures, load and throttling now."""
        head = self.client.request("sense").head
        return {k: v for k, v in head.items() if k not in ("id", "ok")}

    def push(self, data: bytes | Path) -> str:
        """Put a file into the device's store, unless it is there; a broken transfer is taken up. Gives its sha256."""
        if not isinstance(data, Path):
            return self._put_bytes(memoryview(data))
        try:
            with data.open("rb") as f:
                if not data.stat().st_size:
                    return self._put_bytes(memoryview(b""))
                # Not closed by `with`: the traceback of a refusal holds a part of it.
                return self._put_bytes(memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))
        except OSError as e:
            raise UserError(data, f"cannot be read ({e.strerror})", "check the path") from e

    def push_array(self, array: NDArray[np.generic]) -> str:
        """The bytes of an array, C order, little-endian, into the device's store. Gives their sha256."""
        known = self._arrays.get(id(array))
        if known is None:
            plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
            known = self._arrays[id(array)] = (array, self._put_bytes(plain.data))
        return known[1]

    def forget(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """The device need not keep these arrays any longer."""
        known = [self._arrays.pop(id(array), None) for array in arrays.values()]
        sha256 = [k[1] for k in known if k]
        if sha256:
            self.client.request("remove", {"sha256": sha256})

    def open_session(
        self,
        model: Model,
        options: SessionOptions,
        *,
        limits: Limits | None = None,
        require_provider: str | None = None,
        cold: bool = False,
        profile: bool = False,
    ) -> Session:
        """Load a model on the device; `cold`: from the disk, not the page cache; `profile`: to be traced.

        Raises ModelFailure where the runtime refuses it or dies of it, or another provider than `require_provider` runs
        it.
        """
        limits = limits or Limits(int(0.8 * self.probe.memory_bytes), call_seconds=self.call_seconds)
        session = Session(
            self.client, self.push_array, self.push_model(model), options, limits, cold=cold, profile=profile
        )
        if require_provider is not None:
            try:
                demand(session, require_provider)
            except DeviceError:
                session.close()
                raise
        return session

    def push_model(self, model: Model) -> Named:
        """Put a model's file, and that of its external weights, into the device's store, unless they are there."""
        beside = model.external
        names = (self._put(beside, beside.sha256),) if beside else ()
        return Named(self._put(memoryview(model.manifest), model.sha256), model.format, names)

    def _put_bytes(self, data: memoryview) -> str:
        return self._put(data, hashlib.sha256(data).hexdigest())

    def _put(self, data: Content, sha256: str) -> str:
        have = self.client.request("have", {"sha256": [sha256]}).head
        if sha256 in have["sizes"]:
            return sha256
        offset = int(have["partial"].get(sha256, 0))
        try:
            self.client.put(sha256, data, min(offset, max(len(data) - 1, 0)))
        except AgentRefusal as e:
            if e.kind != "corrupt" or not offset:
                raise
            self.client.put(sha256, data)  # what was left of the broken transfer was damaged; the agent removed it
        return sha256


def open_device(
    target: Target,
    *,
    ssh_config: Path | None = None,
    progress: Progress | None = None,
    venv: bool = True,
) -> Device:
    """Reach a device and start its agent. `venv` False: on the plain Python, not the environment under the root.

    Raises DeviceError (ConnectionLost, UnknownHostKey, ChangedHostKey, NoPython, ...) with the mend.
    """
    if progress:
        progress(f"connecting to {target.name}")
    transport = connect(target, ssh_config)
    try:
        started = bootstrap.start(transport, agent_command(target, venv=venv), target.python)
        try:
            return Device(target, transport, AgentClient(target.name, started, progress=progress))
        except BaseException:
            started.channel.close()
            raise
    except BaseException:
        transport.close()
        raise


def connect(target: Target, ssh_config: Path | None = None) -> Transport:
    """The transport to a device, logged in."""
    if target.url == "local":
        return LocalTransport(target.name)
    from edgelathe.device.ssh import SshTransport

    endpoint = SshConfig(ssh_config).endpoint(target.url)

    def verify(hop: Endpoint, key: hostkeys.HostKey) -> None:
        last = hop is endpoint  # the fingerprint is the device's own, jump hosts are known by known_hosts alone
        where = target.name if last else f"{target.name}: jump host {hop.alias}"
        hostkeys.check(hop, key, where, target.fingerprint if last else None)

    return SshTransport(target.name, endpoint, verify)


def agent_command(target: Target, *, venv: bool = True) -> list[str]:
    """The argument vector that starts the agent of a device."""
    return bootstrap.command(agent_root(target), target.python, local=target.url == "local", venv=venv)


def agent_root(target: Target) -> str:
    """The agent's folder on a device, as the device's shell is to expand it."""
    if target.root is not None:
        return target.root
    return str(data_dir() / "local-agent") if target.url == "local" else bootstrap.DEFAULT_ROOT


def resolve(text: str, registry: Mapping[str, Target], *, ssh_config: Path | None = None) -> Target:
    """`local`, a registered name, an ssh URL, or a host of the ssh config. Raises UserError with the nearest name."""
    if text == "local":
        return LOCAL
    if text in registry:
        return registry[text]
    if "://" in text or "@" in text:
        SshConfig(ssh_config).endpoint(text)  # says what is wrong with it before anything else is done
        return Target(text, text)
    config = SshConfig(ssh_config)
    if config.knows(text):
        return Target(text, f"ssh://{text}")
    otherwise = "register it with `edgelathe device add NAME TARGET`, or give ssh://user@host"
    mend = nearest(text, ["local", *registry, *config.hosts()], otherwise)
    raise UserError(f"device '{text}'", "is neither registered nor a host of the ssh config", mend)
