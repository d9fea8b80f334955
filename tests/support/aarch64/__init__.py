"""A device that is aarch64 down to its C library, Python and runtimes, behind a real sshd on a loopback port.

    with aarch64.device(folder) as board:
        board.ssh("uname", "-m")

It runs in namespaces of its own, so nothing of the machine changes and no root is needed; qemu emulates the processor.
It dies with the process that made it. What it lacks is told by `NoArmError`. See docs/testing.md.
"""

from support.aarch64.device import Arm, device, why_not
from support.aarch64.root import Built, NoArmError, build, cache

__all__ = ["Arm", "Built", "NoArmError", "build", "cache", "device", "why_not"]
