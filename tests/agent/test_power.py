"""Sensors in trees laid out as the kernel's documents say, and in trees that change while they are read."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent import rails, sensors
from edgelathe_agent.power import SLOWEST, Meter, refresh
from edgelathe_agent.protocol import AgentError


def tree(root: Path, files: dict[str, object]) -> str:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    return str(root)


def hwmon(number: int, name: str, files: dict[str, object]) -> dict[str, object]:
    return {f"sys/class/hwmon/hwmon{number}/{k}": v for k, v in {"name": name, **files}.items()}


@pytest.fixture
def orin(tmp_path) -> str:
    """A Jetson Orin Nano: the mainline ina3221 driver."""
    channels = {"VDD_IN": (5048, 1008), "VDD_CPU_GPU_CV": (5048, 152), "VDD_SOC": (5040, 264)}
    files: dict[str, object] = {"update_interval": 4, "in7_label": "sum of shunt voltages", "in7_input": 7}
    for n, (label, (mv, ma)) in enumerate(channels.items(), 1):
        files |= {f"in{n}_label": label, f"in{n}_input": mv, f"curr{n}_input": ma, f"in{n}_enable": 1}
    files |= {"curr4_input": 1424}
    return tree(tmp_path, hwmon(1, "ina3221", files))


@pytest.fixture
def nano(tmp_path) -> str:
    """A Jetson Nano of JetPack 4: the iio driver of NVIDIA's kernel."""
    base, files = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/", {}
    for n, (label, mw) in enumerate({"POM_5V_IN": 2215, "POM_5V_GPU": 40, "POM_5V_CPU": 562}.items()):
        files |= {f"{base}rail_name_{n}": label, f"{base}in_voltage{n}_input": 5040, f"{base}in_power{n}_input": mw}
    return tree(tmp_path, files)


@pytest.fixture
def laptop(tmp_path) -> str:
    """RAPL with a subzone and the platform's zone, and a battery in use."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:1": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    files: dict[str, object] = {}
    for n, (zone, name) in enumerate(zones.items(), 1):
        base = f"sys/class/powercap/{zone}/"
        files |= {base + "name": name, base + "energy_uj": n * 1_000_000, base + "max_energy_range_uj": 262143328850}
    battery = {"type": "Battery", "status": "Discharging", "current_now": -1_200_000, "voltage_now": 11_500_000}
    files |= {f"sys/class/power_supply/BAT0/{k}": v for k, v in battery.items()}
    mouse = {"type": "Battery", "scope": "Device", "status": "Discharging", "power_now": 1}
    files |= {f"sys/class/power_supply/hidpp_battery_0/{k}": v for k, v in mouse.items()}
    return tree(tmp_path, files)


ADC = """ 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.20000000A
  VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.09066000V
      BATT_V volt(25)=0.00000000V
"""


def program(root: Path, script: str) -> str:
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(root)


def by_label(root: str) -> dict[str, rails.Source]:
    return {s.label: s for s in rails.sources(root)}


def test_a_jetson_orin_has_three_rails_and_its_input_says_so(orin):
    found = by_label(orin)
    assert {label: s.scope for label, s in found.items()} == {"VDD_IN": "input", "VDD_CPU_GPU_CV": "", "VDD_SOC": ""}
    assert found["VDD_IN"].value() == pytest.approx(5.048 * 1.008)
    assert (found["VDD_IN"].driver, found["VDD_IN"].kind, found["VDD_IN"].refresh_s) == ("ina3221", "power", 0.004)


def test_a_channel_that_is_not_connected_or_switched_off_is_not_taken_for_zero(orin):
    chip = Path(orin, "sys/class/hwmon/hwmon1")
    (chip / "in2_label").write_text("NC\n")
    (chip / "in3_enable").write_text("0\n")
    found = by_label(orin)
    assert "NC" not in found
    assert "switched off" in found["VDD_SOC"].why


def test_a_jetson_nano_of_the_older_kernel(nano):
    found = by_label(nano)
    assert found["POM_5V_IN"].value() == pytest.approx(2.215)
    assert [s.scope for s in found.values()] == ["input", "", ""]


def test_rapl_zones_are_named_subzones_are_parts_and_one_register_counts_once(laptop):
    found = by_label(laptop)
    assert list(found) == ["package-0", "psys", "package-0/core", "BAT0"]
    assert (found["package-0/core"].part_of, found["package-0/core"].scope) == ("package-0", "")
    assert (found["psys"].scope, found["package-0"].scope) == ("platform", "package")
    assert found["package-0"].value() == pytest.approx(1.0)
    assert found["package-0"].wraps_j == pytest.approx(262143.32885)


def test_a_battery_counts_only_while_it_is_used(laptop):
    assert by_label(laptop)["BAT0"].value() == pytest.approx(13.8)
    Path(laptop, "sys/class/power_supply/BAT0/status").write_text("Charging\n")
    assert by_label(laptop)["BAT0"].why == "not discharging: Charging"


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that a login without rights can read; the test runs as one."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        me = os.geteuid()
        yield Path(folder)
        os.seteuid(me)


def test_a_counter_that_only_root_may_read_says_so(nobody):
    zone = "sys/class/powercap/intel-rapl:0/"
    root = tree(nobody, {zone + "name": "package-0", zone + "energy_uj": 1, zone + "max_energy_range_uj": 10})
    Path(root, zone, "energy_uj").chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    assert by_label(root)["package-0"].why == "this login may not read it"
    with pytest.raises(AgentError, match="this login may not read it"):
        Meter(root, ["package-0"])


def test_words_for_a_refused_file():
    assert rails.why(PermissionError(13, "Permission denied")) == "this login may not read it"
    assert rails.why(OSError(61, "No data available")) == "No data available"


def test_any_power_or_energy_of_hwmon_by_its_label_else_its_chip(tmp_path):
    root = tree(
        tmp_path,
        {
            **hwmon(0, "power_meter", {"power1_average": 45_000_000, "power1_average_interval": 1000}),
            **hwmon(1, "amdgpu", {"power1_input": 12_500_000, "power1_label": "PPT"}),
            **hwmon(2, "ina226", {"power1_input": 7_000_000, "in1_input": 5000, "curr1_input": 1400, "label": "rail"}),
            **hwmon(3, "amd_energy", {"energy1_input": 5_000_000, "energy1_label": "Esocket0"}),
            **hwmon(4, "ina226", {"power1_input": 1_000_000}),
            **hwmon(5, "ina226", {"power1_input": 2_000_000}),
        },
    )
    found = by_label(root)
    assert {k: s.value() for k, s in found.items()} == pytest.approx(
        {"power_meter": 45, "PPT": 12.5, "rail": 7, "Esocket0": 5, "ina226": 1, "ina226#2": 2}
    )
    assert found["power_meter"].refresh_s == 1.0
    assert found["Esocket0"].kind == "energy"


def test_a_raspberry_pi_5_tells_rails_by_their_names_and_what_is_not_in_their_sum(tmp_path):
    root = program(tmp_path, f"[ $1 = pmic_read_adc ] || exit 2\ncat <<'E'\n{ADC}E\n")
    found = by_label(root)
    assert list(found) == ["PMIC", "3V7_WL_SW", "3V3_SYS", "VDD_CORE"]
    assert found["VDD_CORE"].value() == pytest.approx(1.6)
    assert found["PMIC"].value() == pytest.approx(0.37 + 0.66 + 1.6)
    assert found["PMIC"].scope == "pmic"
    assert "USB" in found["PMIC"].note


def test_a_raspberry_pi_without_that_chip_has_no_such_sensor_and_one_that_refuses_says_why(tmp_path):
    root = program(tmp_path, "echo 'error=1 error_msg=\"Command not registered\"'\n")
    assert rails.sources(root) == []
    program(tmp_path, 'echo "Can\'t open device file: /dev/vcio"; exit 1\n')
    assert "/dev/vcio" in by_label(root)["PMIC"].why


def test_the_probe_lists_them(orin):
    entry = next(s for s in sensors.found(orin) if s["label"] == "VDD_IN")
    assert (entry["kind"], entry["scope"], entry["why"]) == ("power", "input", "")
    assert entry["path"].endswith("hwmon1/in1_label")


def test_no_meter_reads_nothing(tmp_path):
    meter = Meter(str(tmp_path), [])
    meter.take()
    assert (meter.interval, meter.readings()) == (0.0, None)


def test_a_sensor_that_is_not_there_is_named_with_those_that_are(orin):
    with pytest.raises(AgentError, match="'VDD'") as e:
        Meter(orin, ["VDD"])
    assert "VDD_IN" in e.value.mend
    Path(orin, "sys/class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(AgentError):
        Meter(orin, ["VDD_IN"])


def test_a_counter_goes_on_where_it_wraps(laptop):
    path = Path(laptop, "sys/class/powercap/intel-rapl:0/energy_uj")
    path.write_text("262143000000\n")
    meter = Meter(laptop, ["package-0"])
    meter.take()
    path.write_text("671150\n")  # 328,850 uJ to the end, and on
    (found,) = meter.readings()
    assert (found["unit"], found["why"]) == ("J", "")
    assert found["values"] == pytest.approx([0, 1.0])


def test_a_counter_of_unknown_range_that_starts_again_ends_its_readings(tmp_path):
    root = tree(tmp_path, hwmon(0, "amd_energy", {"energy1_input": 9_000_000}))
    meter = Meter(root, ["amd_energy"])
    meter.take()
    Path(root, "sys/class/hwmon/hwmon0/energy1_input").write_text("5\n")
    (found,) = meter.readings()
    assert found["why"].startswith("the counter started again")
    assert found["values"] == [0]


def test_a_sensor_that_vanishes_ends_its_readings_and_keeps_those_before(orin):
    meter = Meter(orin, ["VDD_IN", "VDD_SOC"])
    meter.take()
    Path(orin, "sys/class/hwmon/hwmon1/in1_input").unlink()
    gone, stays = meter.readings()
    assert gone["why"].startswith("it is gone after 0.")
    assert (len(gone["values"]), len(stays["values"])) == (1, 2)
    assert stays["why"] == ""


class Writer(threading.Thread):
    """A counter in a file that goes on at `watts(seconds)`, a new value every `every` seconds."""

    def __init__(self, path: Path, watts, every: float = 0.005) -> None:
        super().__init__(daemon=True)
        self.path, self.watts, self.every, self.stop = path, watts, every, threading.Event()
        self.joules, self.log, self.lock = 0.0, [], threading.Lock()

    def put(self, value: float) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(f"{round(value)}\n")
        part.rename(self.path)

    def run(self) -> None:
        start = last = time.monotonic()
        while not self.stop.wait(self.every):
            with self.lock:
                now = time.monotonic()
                self.joules += self.watts(now - start) * (now - last)
                last = now
                self.step(now, self.watts(now - start))

    def total(self) -> float:
        """Joules up to now: what the file says."""
        with self.lock:
            return self.joules

    def step(self, now: float, _: float) -> None:
        self.put(self.joules * 1e6)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.join()


class PowerWriter(Writer):
    def step(self, now: float, watts: float) -> None:
        self.put(watts * 1e6)
        self.log.append((now, watts))


def read_for(meter: Meter, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        meter.take()
        time.sleep(meter.interval)


def test_joules_of_a_counter_are_those_that_went_in(laptop):
    path = Path(laptop, "sys/class/powercap/intel-rapl:0/energy_uj")
    path.write_text("0\n")
    with Writer(path, lambda s: 3.0 if s < 0.4 else 8.0) as writer:
        meter = Meter(laptop, ["package-0"])
        before = writer.total()
        meter.take()
        begun = writer.total()
        read_for(meter, 0.8)
        ended = writer.total()
        (found,) = meter.readings()
        after = writer.total()
    assert ended - begun - 1e-5 <= found["values"][-1] <= after - before + 1e-5  # the file is in whole microjoules


def test_a_slow_sensor_is_found_out_and_read_less_often(orin):
    chip = Path(orin, "sys/class/hwmon/hwmon1")
    (chip / "update_interval").unlink()
    (chip / "power1_input").write_text("1\n")
    (chip / "power1_label").write_text("slow\n")
    with PowerWriter(chip / "power1_input", lambda s: 2 + s, every=0.12) as writer:
        meter = Meter(orin, ["slow"])
        read_for(meter, 2.4)
        (found,) = meter.readings()
    paces = np.diff([at for at, _ in writer.log])  # 0.12 s, more where the machine is late
    assert found["refresh_s"] == pytest.approx(np.median(paces), rel=0.5)
    assert len(found["values"]) < 120  # 240 at the fastest pace
    assert found["cost_us"] > 0
    written = {round(w * 1e6) for _, w in writer.log}
    assert {round(v * 1e6) for v in found["values"]} <= written | {1}


def test_a_program_that_takes_long_is_asked_seldom(tmp_path):
    root = program(tmp_path, f"sleep 0.01\ncat <<'E'\n{ADC}E\n")
    meter = Meter(root, ["PMIC"])
    begun = time.monotonic()
    for _ in range(2):
        read_for(meter, 0.4)
    (found,) = meter.readings()
    assert 2 <= len(found["values"]) <= (time.monotonic() - begun) / 0.2 + 2
    assert found["cost_us"] > 10_000
    assert SLOWEST < 0.4


def test_pace_from_changes():
    assert refresh([0, 10, 20], [1, 2, 3]) == 0
    assert refresh([i * 10_000_000 for i in range(20)], [i // 4 for i in range(20)]) == pytest.approx(0.04)


def test_a_real_agent_watches_through_a_program_on_its_path(start, tmp_path):
    root = program(tmp_path / "fs", f"cat <<'E'\n{ADC}E\n")
    agent = start(env={"PATH": f"{root}/usr/bin:{os.environ['PATH']}"})
    listed = {s["label"]: s for s in agent.ask("probe").head["sensors"]}
    assert listed["PMIC"]["scope"] == "pmic"
    (power,) = agent.ask("watch", seconds=0.4, meters=["PMIC"]).head["power"]
    assert (power["unit"], power["label"]) == ("W", "PMIC")
    assert power["values"] == pytest.approx([2.63] * len(power["values"]))
    assert 0 <= power["t_ns"][0] < power["t_ns"][-1] < 2e9
    refused = agent.refused("watch", seconds=0.1, meters=["VDD_IN"])
    assert refused["kind"] == "request"
    assert "PMIC" in refused["mend"]
