"""Logging in with a key: those of the ssh agent and of the identity files, in OpenSSH's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgelathe.core.errors import DeviceError
from edgelathe.device.errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgelathe.device.sshconfig import Endpoint


class Offer(NamedTuple):
    """A key to log in with and where it comes from; `locked` where only its passphrase is missing."""

    source: str
    key: Any
    locked: bool = False


def login(transport: Any, endpoint: Endpoint, device: str) -> None:
    """Authenticate `transport` (paramiko's, connected) with the first key that the server takes.

    Raises DeviceError naming what was tried.
    """
    import paramiko

    agent = paramiko.Agent()
    try:
        tried, locked = [], []
        for offer in _offers(endpoint, agent.get_keys()):
            if offer.locked:
                locked.append(offer.source)
                continue
            tried.append(offer.source)
            try:
                more = transport.auth_publickey(endpoint.user, offer.key)
            except paramiko.BadAuthenticationType as e:
                raise translate(e, device=device, host=endpoint.host, port=endpoint.port, user=endpoint.user) from e
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    break  # too many keys: the server hung up
                continue
            if not more:
                return
            raise DeviceError(
                device,
                f"after the key the server wants {', '.join(more)} too",
                "allow login with a key alone in its sshd_config",
            )
        raise _refused(endpoint, device, tried, locked)
    finally:
        agent.close()


def _refused(endpoint: Endpoint, device: str, tried: list[str], locked: list[str]) -> DeviceError:
    who = f"{endpoint.user}@{endpoint.host}"
    copy = f"run `ssh-copy-id -p {endpoint.port} {who}`"
    if locked:
        return DeviceError(
            device,
            f"login as {who} refused: the key {locked[0]} needs its passphrase",
            f"add it to the ssh agent with `ssh-add {locked[0]}`",
        )
    if not tried:
        return DeviceError(device, f"no key to log in as {who}", f"make one with `ssh-keygen`, then {copy}")
    return DeviceError(
        device,
        f"login as {who} refused, tried {', '.join(tried)}",
        f"{copy}, or name the right User and IdentityFile in the ssh config",
    )


def _offers(endpoint: Endpoint, agent_keys: Any) -> Iterator[Offer]:
    """Identity files that the agent holds, then the agent's other keys, then the files themselves."""
    held = {key.asbytes(): key for key in agent_keys}
    public = {path: _public(path) for path in endpoint.keys}
    named = [held.pop(blob) for blob in public.values() if blob in held]
    for key in named + ([] if endpoint.keys_only else list(held.values())):
        yield Offer(f"the ssh agent's {key.comment or key.get_name()}", key)
    used = {key.asbytes() for key in named}
    for path, blob in public.items():
        if path.is_file() and blob not in used:
            yield _load(path)


def _public(path: Path) -> bytes | None:
    import base64

    file = path.with_name(path.name + ".pub")
    try:
        return base64.b64decode(file.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _load(path: Path) -> Offer:
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return Offer(str(path), paramiko.PKey.from_path(path))
    except (paramiko.PasswordRequiredException, TypeError):  # TypeError: cryptography's word for a missing passphrase
        return Offer(str(path), None, locked=True)
    except (OSError, ValueError, paramiko.SSHException, UnsupportedAlgorithm) as e:
        raise DeviceError(
            path, f"not a private key that can be used: {e}", "name another IdentityFile in the ssh config"
        ) from e
    except Exception as e:
        if type(e).__name__ == "UnknownKeyType":
            raise DeviceError(path, "a key of an unknown type", "name another IdentityFile in the ssh config") from e
        raise
