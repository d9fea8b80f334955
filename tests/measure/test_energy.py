"""Known watts give known energies: real agents, sensors that follow what the model does, and sensors that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

import edgelathe
from edgelathe.core.device import Probe, SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.device.open import Device
from edgelathe.device.session import Load, Session
from edgelathe.measure import energy
from edgelathe.measure.energy import EnergyPlan
from edgelathe.measure.rail import choose
from edgelathe.model import io

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider")
QUICK = EnergyPlan(blocks=3, window_s=0.5, settle_s=0.05, most_s=1.0)
BRIEF = EnergyPlan(blocks=3, window_s=0.25, settle_s=0.03, most_s=1.0)  # for meters that say much

#: 2 W, and 3 W more while a child of the agent runs; the agent is what asks.
PMIC = """#!/bin/sh
watts=2.0
read -r children 2>/dev/null < /proc/$PPID/task/$PPID/children
for pid in $children; do
  read -r _ _ state _ 2>/dev/null < /proc/$pid/stat
  [ "$pid" != $$ ] && [ "$state" = R ] && watts=5.0
done
echo " VDD_CORE_A current(7)=${watts}A"
echo " VDD_CORE_V volt(15)=1.0V"
"""

#: The same for a meter on the host, whose clock is an hour off.
METER = """
import sys, time
agent = sys.argv[1]
while True:
    watts = 2.0
    with open(f"/proc/{agent}/task/{agent}/children") as f:
        children = f.read().split()
    for pid in children:
        with open(f"/proc/{pid}/stat") as f:
            if f.read().rpartition(")")[2].split()[0] == "R":
                watts = 5.0
    print(time.time() + 3600, watts, flush=True)
    time.sleep(0.005)
"""


@pytest.fixture
def pmic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vcgencmd` on the path of this test and of the local agent."""
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    put(program, PMIC)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def put(program: Path, script: str) -> None:
    part = program.with_suffix(".part")
    part.write_text(script)
    part.chmod(0o755)
    part.rename(program)


@pytest.fixture
def session(device: Device) -> Iterator[Session]:
    with device.open_session(io.load(BUNDLED / "digits.onnx"), OPTIONS) as opened:
        opened.feed({"input": np.load(BUNDLED / "eval.npz")["x"][:4].astype(np.float32)})
        yield opened


def recorded(by: energy.Gauge) -> list[float]:
    """Milliseconds of an inference in each load window, as they are measured."""
    each_ms: list[float] = []
    load = by.load

    def noted(*args: Any) -> Any:
        reading, timed = load(*args)
        each_ms.append(timed.more["wall_ns"] / 1e6 / len(timed.ns))
        return reading, timed

    by.load = noted  # type: ignore[method-assign]
    return each_ms


def test_the_energy_of_known_watts(pmic: Path, device: Device, session: Session) -> None:
    parts: list[float] = []
    with energy.gauge(device, "PMIC") as by:
        each_ms = recorded(by)
        found = energy.measure(by, session, plan=QUICK, tick=parts.append)
    tier = found.tier
    assert tier["idle_w"] == pytest.approx(2.0, abs=0.2)
    assert tier["load_w"] == pytest.approx(5.0, abs=0.5)
    assert found.mj == pytest.approx(3.0 * fmean(each_ms), rel=0.25)
    assert found.gross_mj == pytest.approx(5.0 * fmean(each_ms), rel=0.15)
    assert found.low < found.mj < found.high
    assert found.low <= found.claim.lower <= found.mj <= found.claim.upper <= found.high
    assert (tier["source"], tier["rail"], tier["driver"], tier["scope"]) == ("device", "PMIC", "vcgencmd", "pmic")
    assert tier["windows"] == QUICK.blocks
    assert tier["rate_hz"] > 1
    assert 0 < tier["sampling_share"] < 1
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    document = found.to_json()
    assert document["mj_per_inference"] == found.mj
    assert document["period_mj"] is None


def test_a_paced_load_has_the_energy_of_a_period_too(tmp_path: Path, device: Device, session: Session) -> None:
    with energy.gauge(device, command=meter(tmp_path, "2.4 + 0.01 * random()")) as by:
        each_ms = recorded(by)
        found = energy.measure(by, session, load=Load(period_ms=20), plan=BRIEF)
    assert found.period_mj == pytest.approx(found.tier["load_w"] * 20)
    assert found.period_mj == pytest.approx(2.405 * 20, rel=0.01)
    assert found.gross_mj == pytest.approx(found.tier["load_w"] * fmean(each_ms), rel=0.2)
    assert min(each_ms) > 15  # a query a period; more where the machine is late


def test_a_difference_below_the_noise_is_said_to_be_so(tmp_path: Path, device: Device, session: Session) -> None:
    with energy.gauge(device, command=meter(tmp_path, "2 + random() * (2 + cos(time.time()))")) as by:
        found = energy.measure(by, session, plan=BRIEF)
    assert found.low <= 0
    assert "below what this sensor can tell" in found.warnings[0]
    assert found.to_json()["low"] == found.low


def meter(folder: Path, watts: str) -> str:
    """A command whose watts have nothing to do with the device."""
    body = (
        f"import time\nfrom math import cos\nfrom random import random\nwhile True:\n    print({watts}, flush=True)\n"
    )
    (folder / "meter.py").write_text(body + "    time.sleep(0.005)\n")
    return f"{sys.executable} {folder}/meter.py"


def test_a_sensor_that_is_stuck_is_an_answer(pmic: Path, device: Device, session: Session) -> None:
    put(pmic, PMIC.replace("5.0", "2.0"))
    with energy.gauge(device, "PMIC") as by:
        found = energy.measure(by, session, plan=EnergyPlan(blocks=2, window_s=0.3, settle_s=0.05, most_s=0.3))
    assert (found.mj, found.to_json(), found.claim) == (None, None, None)
    assert "stuck" in found.warnings[0]
    assert "PMIC" in found.warnings[0]


def test_a_sensor_that_vanishes_is_an_answer_and_the_session_lives_on(
    pmic: Path, device: Device, session: Session
) -> None:
    with energy.gauge(device, "PMIC") as by:
        tick = {1 / QUICK.blocks: pmic.unlink}
        found = energy.measure(by, session, plan=QUICK, tick=lambda part: tick.get(part, lambda: None)())
    assert found.mj is None
    assert "PMIC" in found.warnings[0]
    assert len(session.time(3).ns) == 3


def test_an_external_meter(tmp_path: Path, device: Device, session: Session) -> None:
    (tmp_path / "meter.py").write_text(METER)
    command = f"{sys.executable} {tmp_path}/meter.py {device.client.hello['pid']}"
    with energy.gauge(device, command=command) as by:
        each_ms = recorded(by)
        found = energy.measure(by, session, plan=BRIEF)
    assert (found.tier["source"], found.tier["rail"]) == ("meter", command)
    assert found.tier["idle_w"] == pytest.approx(2.0, abs=0.2)
    assert found.tier["load_w"] == pytest.approx(5.0, abs=0.5)
    assert found.mj == pytest.approx(3.0 * fmean(each_ms), rel=0.25)


def test_a_meter_beside_a_rail_is_one_too_many(device: Device) -> None:
    with pytest.raises(UserError, match="leave one of them out"), energy.gauge(device, "VDD_IN", "meter"):
        pass


def probe(*sensors: dict[str, Any], emulated: bool = False) -> Probe:
    rows = tuple({"kind": "power", "path": "", "why": "", "scope": "", "part_of": "", **s} for s in sensors)
    return Probe("cam", "aarch64", "Cortex-A78AE", 4, 1 << 30, "3.10", (), emulated, sensors=rows)


VDD_IN, SOC = {"label": "VDD_IN", "scope": "input"}, {"label": "VDD_SOC"}
PACKAGE, CORE = {"label": "package-0", "scope": "package"}, {"label": "package-0/core", "part_of": "package-0"}
PSYS, BATTERY = {"label": "psys", "scope": "platform"}, {"label": "BAT0", "scope": "battery"}


def labels(*args: Any) -> list[str]:
    return [s["label"] for s in choose(*args)]


def test_the_rail_whose_label_says_total_is_taken() -> None:
    assert labels(probe(SOC, VDD_IN)) == ["VDD_IN"]
    assert labels(probe(PACKAGE, CORE)) == ["package-0"]
    assert labels(probe(PACKAGE, PSYS, BATTERY)) == ["psys"]
    assert labels(probe(BATTERY)) == ["BAT0"]


@pytest.mark.parametrize(
    ("sensors", "names"),
    [
        ([SOC], "VDD_SOC"),
        ([SOC, {"label": "VDD_CPU_CV"}], "VDD_SOC, VDD_CPU_CV"),
        ([PACKAGE, {**PACKAGE, "label": "package-1"}], "package-0, package-1"),
        ([VDD_IN, PACKAGE], "VDD_IN, package-0"),
    ],
)
def test_which_rail_is_the_total_is_never_guessed(sensors: list[dict[str, Any]], names: str) -> None:
    with pytest.raises(UserError, match=names) as e:
        choose(probe(*sensors))
    assert "--rail" in e.value.mend


def test_rails_may_be_added_but_no_part_to_its_whole() -> None:
    assert labels(probe(SOC, VDD_IN, {"label": "5V"}), "VDD_SOC + 5V") == ["VDD_SOC", "5V"]
    for rail in ("package-0+package-0/core", "package-0/core+package-0", "package-0+package-0"):
        with pytest.raises(UserError, match="twice"):
            choose(probe(PACKAGE, CORE), rail)


def test_a_rail_that_is_not_there_or_not_readable() -> None:
    with pytest.raises(UserError, match="did you mean 'VDD_IN'"):
        choose(probe(SOC, VDD_IN), "VDD_INN")
    with pytest.raises(UserError, match=r"shows no power or energy sensor.*--meter"):
        choose(probe({"kind": "temperature", "label": "cpu"}))
    locked = {**PACKAGE, "driver": "intel-rapl", "why": "this login may not read it"}
    for rail in (None, "package-0"):
        with pytest.raises(UserError, match=r"this login may not read it.*chmod a\+r"):
            choose(probe(locked), rail)


def test_an_emulated_device_has_no_energy(device: Device) -> None:
    device.__dict__["probe"] = probe(VDD_IN, emulated=True)
    for rail, meter in ((None, None), (None, "meter")):
        with pytest.raises(UserError, match="emulated"), energy.gauge(device, rail, meter):
            pass


def test_a_slow_or_costly_sensor_makes_windows_longer_up_to_a_limit() -> None:
    def spans(refresh: float | None, every: float = 0.01) -> tuple[float, float]:
        return energy._long(energy.Reading(energy.Window((), 0, 1), refresh, every), EnergyPlan())

    assert spans(None) == (1.5, 0.3)
    assert spans(0.5) == (5.0, 1.0)
    assert spans(0.1, every=0.5) == (5.0, 1.0)
    assert spans(30.0) == (20.0, 5.0)
