from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgelathe.core.device import Probe, Runtime
from edgelathe.core.errors import DeviceError, UserError
from edgelathe.fleet.check import check, document
from edgelathe.fleet.inventory import Inventory, Member, load

FLEET = """
[fleet]
name = "shops"
parallel = 4
[groups.edge]
profile = "raspberry-pi-4"
hosts = ["pi@10.0.0.1", "cam"]
[groups.lab]
hosts = ["ssh://lab:2222"]
root = "/opt/edgelathe"
"""


def probe(
    name: str, machine: str = "aarch64", model: str | None = "Raspberry Pi 4 Model B Rev 1.4", **extra: object
) -> Probe:
    runtimes = () if extra.pop("bare", False) else (Runtime("onnxruntime", "1.32.0", ("CPUExecutionProvider",)),)
    facts = {"free_bytes": 10_000_000_000, **extra}
    return Probe(name, machine, "Cortex-A72", 4, 4 << 30, "3.11.2", runtimes, False, model=model, extra=facts)


def test_a_fleet_file_says_hosts_groups_and_profiles(tmp_path: Path) -> None:
    file = tmp_path / "shops.toml"
    file.write_text(FLEET)
    fleet = load(file)
    assert (fleet.name, fleet.parallel) == ("shops", 4)
    assert [m.host for m in fleet.members] == ["pi@10.0.0.1", "cam", "ssh://lab:2222"]
    assert [m.profile for m in fleet.members] == ["raspberry-pi-4", "raspberry-pi-4", None]
    assert fleet.members[2].root == "/opt/edgelathe"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no hosts"),
        ("[groups.a]\nhost = ['x']", "did you mean 'hosts'"),
        ("[groups.a]\nhosts = 'x'", "a list"),
        ("[groups.a]\nhosts = [1]", "hosts"),
        ("[groups]\na = 1", "groups.a"),
        ("[groups.a]\nhosts = ['x', 'x']", "'x' is in groups.a too"),
        ("[fleet]\nparallel = 0\n[groups.a]\nhosts = ['x']", "parallel"),
        ("not toml", "cannot be read"),
    ],
)
def test_mistakes_in_a_fleet_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "shops.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"shops\.toml") as e:
        load(file)
    assert says in str(e.value)


def test_each_device_gets_its_own_answer() -> None:
    answers: dict[str, Probe | DeviceError] = {
        "good": probe("good"),
        "away": DeviceError("away", "no route to host", "check the network"),
        "bare": probe("bare", bare=True),
        "full": probe("full", free_bytes=1_000_000),
        "pc": probe("pc", machine="x86_64", model=None),
        "pi5": probe("pi5", model="Raspberry Pi 5 Model B Rev 1.0"),
    }

    def ask(member: Member) -> Probe:
        answer = answers[member.host]
        if isinstance(answer, DeviceError):
            raise answer
        return answer

    fleet = Inventory("f", tuple(Member(name, "g", "raspberry-pi-4") for name in answers))
    found = check(fleet, ask)
    assert [a.state for a in found] == [
        "ready",
        "unreachable",
        "no-runtime",
        "no-space",
        "other-profile",
        "other-profile",
    ]
    assert all(a.why for a in found if a.state != "ready")
    assert "device install bare" in found[2].why
    doc = document(fleet, found)
    assert (doc["schema"], doc["state"]) == ("edgelathe.rollout/1", "not-ready")
    assert document(fleet, found[:1])["state"] == "ready"


def test_devices_are_asked_in_parallel_and_no_more_than_allowed() -> None:
    now, most, lock = 0, 0, threading.Lock()

    def ask(member: Member) -> Probe:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return probe(member.host)

    fleet = Inventory("f", tuple(Member(f"d{i}", "g", None) for i in range(40)), parallel=8)
    assert [a.member.host for a in check(fleet, ask)] == [f"d{i}" for i in range(40)]
    assert 1 < most <= 8
