"""Clocks, temperatures, throttling and load of boards as their kernels show them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgelathe_agent import gpu, kernel, sensors
from support.trees import BOARDS, FIRMWARE, coolers, stat, vcgencmd, write

HERTZ = os.sysconf("SC_CLK_TCK")


def sense(folder: Path, board: str, **more: str) -> dict:
    sensors.refresh(root := write(folder, {**BOARDS[board](), **more}))
    return sensors.sense(root)


def test_a_raspberry_pi_4(tmp_path):
    now = sense(tmp_path, "pi4")
    times = now.pop("time_ns")
    assert times.keys() == {"wall", "monotonic", "boot"}
    assert now == {
        "clocks_khz": {"cpu0": 600000}, "governors": {"cpu0": "ondemand"}, "temperatures_c": {"cpu-thermal": 48.199},
        "load1": 0.52, "throttled": False,
        "throttle_why": ["under-voltage since boot", "throttled by the firmware since boot"],
        "throttle_count": None, "cpu_s": {"busy": 1500 / HERTZ, "idle": 8200 / HERTZ, "steal": 0.0},
        "swap_pages": {"in": 3, "out": 259}, "gpu_khz": None, "power_mode": None, "clocks_locked": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "now", "why"),
    [
        ("0", False, []),
        ("50000", False, ["under-voltage since boot", "throttled by the firmware since boot"]),
        ("50005", True, ["under-voltage", "throttled by the firmware"]),
        ("80008", True, ["soft temperature limit"]),
        ("0x20002", True, ["clock capped"]),
        ("", None, []),
        ("nonsense", None, []),
    ],
)
def test_the_firmware_of_a_raspberry_pi_says_now_and_since_boot(bits, now, why, tmp_path):
    found = sense(tmp_path, "pi4", **{FIRMWARE: bits})
    assert (found["throttled"], found["throttle_why"]) == (now, why)


def test_where_the_file_is_gone_vcgencmd_is_asked_at_most_once_a_second(tmp_path):
    assert sense(tmp_path / "a", "pi5")["throttled"] is None  # the silent alarm says nothing of heat
    found = sense(tmp_path / "b", "pi5", **vcgencmd("0x80008"))
    assert (found["throttled"], found["throttle_why"]) == (True, ["soft temperature limit"])
    for _ in range(5):
        assert sensors.sense(str(tmp_path / "b"))["throttled"] is True
    assert len((tmp_path / "b/usr/bin/vcgencmd.asked").read_text().split()) == 1
    assert sense(tmp_path / "c", "pi5", **{"usr/bin/vcgencmd": "#!/bin/sh\nexit 255\n"})["throttled"] is None


def test_a_later_answer_of_vcgencmd_is_seen(tmp_path, monkeypatch):
    root = write(tmp_path, {**BOARDS["pi5"](), **vcgencmd("0x0")})
    assert sensors.sense(root)["throttled"] is False
    write(tmp_path, vcgencmd("0x4"))
    clock = kernel.time.monotonic
    monkeypatch.setattr(kernel.time, "monotonic", lambda: clock() + 5)
    assert sensors.sense(root)["throttled"] is True


def test_the_alarm_of_the_supply_counts_without_the_firmware(tmp_path):
    found = sense(tmp_path, "pi5", **{"sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"})
    assert (found["throttled"], found["throttle_why"]) == (True, ["under-voltage"])


@pytest.mark.parametrize(("board", "heat"), [("orin35", "CPU-therm"), ("orin36", "cpu-thermal")])
def test_a_jetson_orin_of_either_release_is_read_by_its_labels(board, heat, tmp_path):
    now = sense(tmp_path, board)
    assert now["clocks_khz"] == {"cpu0": 729600, "cpu4": 1510400}
    assert now["temperatures_c"][heat] == 45.5
    assert len(now["temperatures_c"]) == 3  # the zone that cannot be read is left out
    assert (now["throttled"], now["throttle_why"], now["throttle_count"]) == (False, [], 3)
    assert (now["gpu_khz"], now["power_mode"], now["clocks_locked"]) == (306000, "15W", False)
    Path(tmp_path, "sys/class/thermal/cooling_device2/cur_state").write_text("1\n")
    now = sensors.sense(str(tmp_path))
    assert (now["throttled"], now["throttle_why"]) == (True, ["cooled by cpu-throttle-alert"])
    power = [s["label"] for s in sensors.found(str(tmp_path)) if s["kind"] == "power"]
    assert power.count("VDD_IN") == 1
    assert "sum of shunt voltages" not in power


def test_a_jetson_nano_whose_clocks_are_held(tmp_path):
    now = sense(tmp_path, "nano")
    assert (now["gpu_khz"], now["power_mode"], now["clocks_locked"]) == (640000, "5W", True)
    Path(tmp_path, "sys/class/devfreq/57000000.gpu/min_freq").write_text("76800000\n")
    assert sensors.sense(str(tmp_path))["clocks_locked"] is False


def test_nvpmodel_is_asked_where_its_notes_are_missing(tmp_path):
    program = {"usr/sbin/nvpmodel": '#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: MAXN\\n0\\n"\n'}
    files = {k: v for k, v in BOARDS["nano"]().items() if "var/lib" not in k}
    assert sensors.sense(write(tmp_path / "a", files))["power_mode"] is None
    assert sensors.sense(write(tmp_path / "b", {**files, **program}))["power_mode"] == "MAXN"


def test_big_and_little_cores_have_clocks_of_their_own_and_the_gpu_is_not_the_npu(tmp_path):
    now = sense(tmp_path, "rk3588")
    assert now["clocks_khz"] == {"cpu0": 1800000, "cpu4": 2256000, "cpu6": 408000}
    assert now["gpu_khz"] == 300000
    assert (now["throttled"], now["throttle_why"]) == (True, ["cooled by thermal-cpufreq-1"])


@pytest.mark.parametrize(
    ("name", "more", "is_gpu"),
    [
        ("17000000.gv11b", {}, True), ("5000000.qcom,kgsl-3d0", {"name": "gpu"}, True), ("13000000.mali", {}, True),
        ("ff9a0000.x", {"device/of_node/name": "gpu"}, True), ("gpu-gpc-0", {}, True),
        ("dmc", {}, False), ("fdab0000.npu", {}, False), ("15340000.vic", {}, False),
        ("10c20000.memory-controller", {}, False),
    ],
)  # fmt: skip
def test_a_gpu_is_known_by_its_name(name, more, is_gpu, tmp_path):
    files = {f"sys/class/devfreq/{name}/{k}": f"{v}\n" for k, v in {"cur_freq": "5000000", **more}.items()}
    assert sensors.sense(write(tmp_path, files))["gpu_khz"] == (5000 if is_gpu else None)


def test_an_x86_laptop_counts_each_core_and_package_once(tmp_path):
    now = sense(tmp_path, "laptop")
    assert now["clocks_khz"] == dict.fromkeys(("cpu0", "cpu1", "cpu2", "cpu3"), 2995212)
    assert set(now["governors"].values()) == {"powersave"}
    assert now["temperatures_c"] == {"Package id 0": 51.0}
    assert (now["throttled"], now["throttle_count"]) == (False, 1 + 7)
    assert ("energy", "package-0") in [(s["kind"], s["label"]) for s in sensors.found(str(tmp_path))]


def test_an_older_kernel_has_its_clocks_beside_each_cpu(tmp_path):
    files = {f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq": f"{n}00\n" for n in (1, 2, 10)}
    assert sensors.sense(write(tmp_path, files))["clocks_khz"] == {"cpu1": 100, "cpu2": 200, "cpu10": 1000}


def test_a_virtual_machine_shows_what_was_stolen_and_no_more(tmp_path):
    now = sense(tmp_path, "vm")
    assert now["cpu_s"] == {"busy": 150 / HERTZ, "idle": 300 / HERTZ, "steal": 50 / HERTZ}
    assert (now["clocks_khz"], now["governors"], now["temperatures_c"]) == ({}, {}, {})
    assert (now["throttled"], now["throttle_count"], now["clocks_locked"]) == (None, None, None)


def test_time_of_guests_is_not_counted_twice(tmp_path):
    now = sense(tmp_path, "vm", **stat(user=100, system=50, idle=300, guest=90))
    assert now["cpu_s"]["busy"] == 150 / HERTZ


def test_a_bare_tree_is_unknown_and_not_an_error(tmp_path):
    now = sensors.sense(str(tmp_path))
    assert now.pop("time_ns")
    assert now == {
        "clocks_khz": {}, "governors": {}, "temperatures_c": {}, "load1": None, "throttled": None, "throttle_why": [],
        "throttle_count": None, "cpu_s": None, "swap_pages": None, "gpu_khz": None, "power_mode": None,
        "clocks_locked": None,
    }  # fmt: skip
    assert sensors.found(str(tmp_path)) == []


def test_a_sensor_that_vanishes_is_left_out(tmp_path):
    sense(tmp_path, "orin36")
    Path(tmp_path, "sys/class/thermal/thermal_zone1/temp").unlink()
    Path(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq").unlink()
    Path(tmp_path, "sys/class/thermal/cooling_device0/cur_state").write_text("broken\n")
    now = sensors.sense(str(tmp_path))
    assert now["temperatures_c"] == {"cpu-thermal": 45.5, "tj-thermal": 45.5}
    assert (now["gpu_khz"], now["throttled"]) == (None, False)


def test_zones_of_one_name_are_told_apart(tmp_path):
    files = {f"sys/class/thermal/thermal_zone{i}/type": "soc" for i in (0, 2, 10)}
    files |= {f"sys/class/thermal/thermal_zone{i}/temp": str(1000 * i) for i in (0, 2, 10)}
    assert sensors.sense(write(tmp_path, files))["temperatures_c"] == {"soc": 0.0, "soc#2": 2.0, "soc#3": 10.0}


def test_a_cooling_device_of_the_gpu_counts_and_a_fan_does_not(tmp_path):
    assert sensors.sense(write(tmp_path / "a", coolers(devfreq_17000000_gpu=1)))["throttled"] is True
    assert sensors.sense(write(tmp_path / "b", coolers(devfreq_dmc=1, pwm_fan=4)))["throttled"] is None


def test_conditions_tell_throttling_between_two_looks():
    def look(throttled, count, *why):
        return {"throttled": throttled, "throttle_count": count, "throttle_why": list(why)}

    assert sensors.conditions(look(None, 3), look(None, 4))["throttled"] is True
    assert sensors.conditions(look(None, 3), look(None, 3))["throttled"] is False
    assert sensors.conditions(look(False, None), look(True, None, "hot"))["throttled"] is True
    assert sensors.conditions(look(None, None), look(None, None))["throttled"] is None
    over = look(False, None, "under-voltage since boot")
    assert sensors.conditions(look(False, None), over)["throttled"] is True
    assert sensors.conditions(over, over)["throttled"] is False


NVML = """
typedef void *Card;
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Card *card) { *card = (Card)(0x7f0000000000ull + i); return 0; }
static int second(Card card) { return card == (Card)0x7f0000000001ull; }
int nvmlDeviceGetClockInfo(Card card, int kind, unsigned *mhz) {
    *mhz = kind == 0 ? 1410 : 7;
    return second(card) ? 3 /* NVML_ERROR_NOT_SUPPORTED */ : 0;
}
int nvmlDeviceGetTemperature(Card card, int kind, unsigned *c) { *c = 41 + second(card); return kind; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Card card, unsigned long long *bits) {
    *bits = 0x1 /* idle is no fault */ | (second(card) ? 0x24 : 0);
    return 0;
}
"""


def library(folder: Path, init: int) -> ctypes.CDLL:
    """NVIDIA's library as nvml.h declares it, with two cards, the second of which does not tell its clock."""
    compiler = shutil.which("cc") or pytest.skip("NO C COMPILER: the library's calls are not tested")
    source, built = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(NVML)
    subprocess.run([compiler, "-shared", "-fPIC", f"-DINIT={init}", "-o", built, source], check=True)
    return ctypes.CDLL(str(built))


def test_cards_tell_their_clock_heat_and_what_slows_them(tmp_path):
    cards = gpu.Cards(library(tmp_path, init=0))
    assert cards.state() == (1410000, {"gpu0": 41.0, "gpu1": 42.0}, ["GPU at its power cap", "GPU too hot"])


def test_a_driver_that_does_not_answer_is_no_card(tmp_path):
    with pytest.raises(OSError, match="does not answer"):
        gpu.Cards(library(tmp_path, init=9))  # NVML_ERROR_DRIVER_NOT_LOADED


def test_this_machine_can_be_sensed(agent):
    first, second = agent.ask("sense").head, agent.ask("sense").head
    assert second["time_ns"]["monotonic"] > first["time_ns"]["monotonic"]
    assert second["cpu_s"]["busy"] >= first["cpu_s"]["busy"] > 0
