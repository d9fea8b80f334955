"""`device add`: look at a host key, and at nothing else, and decide whether it is the device's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edgelathe.device import hostkeys
from edgelathe.device.errors import UnknownHostKey
from edgelathe.device.hostkeys import HostKey
from edgelathe.device.sshconfig import Endpoint, SshConfig

if TYPE_CHECKING:
    from pathlib import Path

    from edgelathe.core.device import Target

Confirm = Callable[[HostKey, Endpoint], bool]
"""Shows the key and asks; None where nobody can be asked."""


def trust(target: Target, *, ssh_config: Path | None = None, confirm: Confirm | None = None) -> Target:
    """The target with its key's fingerprint, the key being kept in a known_hosts file from now on.

    A key that a known_hosts file vouches for is taken; a new one where `target.fingerprint` is its own or `confirm`
    says yes. Raises UnknownHostKey, ChangedHostKey (another key is known, or the fingerprint is another one),
    UserError for a malformed fingerprint, and DeviceError where the device cannot be reached. `local` has no key.
    """
    if target.url == "local":
        return target
    if target.fingerprint is not None:
        target = replace(target, fingerprint=hostkeys.normalized(target.fingerprint))
    endpoint = SshConfig(ssh_config).endpoint(target.url)
    key = _offered(target, endpoint)
    if target.fingerprint is not None and target.fingerprint != key.fingerprint:
        raise hostkeys.wrong_fingerprint(endpoint, key, target.name, target.fingerprint)
    try:
        hostkeys.check(endpoint, key, target.name)
    except UnknownHostKey:
        if target.fingerprint is None and not (confirm and confirm(key, endpoint)):
            raise
        hostkeys.accept(endpoint, key)
    return replace(target, fingerprint=key.fingerprint)


def _offered(target: Target, endpoint: Endpoint) -> HostKey:
    """The key that the device shows; logs in at its jump hosts only."""
    from edgelathe.device.ssh import look

    return look(target.name, endpoint)
