"""Real commands as meters: their lines, clocks and ends."""

from __future__ import annotations

import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.measure.meter import ExternalMeter, Line, parse
from edgelathe.measure.watts import mean_watts


def command(folder: Path, body: str) -> str:
    """A meter in Python; `at` is what it is told in seconds."""
    script = folder / "meter.py"
    script.write_text("import sys, time, datetime\ndef say(*words):\n    print(*words, flush=True)\n" + body)
    return f"'{sys.executable}' '{script}'"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("5.25", Line(None, 5.25)),
        ("1700000000.5 5.25", Line(1700000000.5, 5.25)),
        ("1700000000.5, 5.25", Line(1700000000.5, 5.25)),
        ("1970-01-01T00:01:40Z,2", Line(100.0, 2.0)),
        ("1970-01-01 00:01:40.500+00:00 2e0", Line(100.5, 2.0)),
        ("12.5;-0.1", Line(12.5, -0.1)),
    ],
)
def test_lines(text, line):
    assert parse(text) == line


@pytest.mark.parametrize(("text", "why"), [("5 W", "'W'"), ("x 5", "'x' is no time"), ("nan", "nan"), ("1 inf", "inf")])
def test_bad_lines_say_what_is_wrong(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_a_meter_whose_clock_is_an_hour_off_tells_the_power_of_our_time(tmp_path):
    wave = "while True:\n    t = time.time()\n    say(t + 3600, 2 if int(t * 2) % 2 else 8)\n    time.sleep(0.004)\n"
    with ExternalMeter(command(tmp_path, "say('time', 'watts')\n" + wave)) as meter:
        trace = meter.trace(meter.now() + 1.1)
        ahead = time.time() - meter.now()
        assert meter.warnings == ()
    phase = (trace.t + ahead) * 2 % 2  # of a wave of 0.5 s either way
    far = np.abs(phase % 1 - 0.5) < 0.4  # 50 ms from where it changes
    assert set(trace.values[far & (phase > 1)]) == {2.0}
    assert set(trace.values[far & (phase < 1)]) == {8.0}


def test_watts_alone_count_by_their_arrival(tmp_path):
    with ExternalMeter(command(tmp_path, "while True:\n    say(4.5)\n    time.sleep(0.1)\n")) as meter:
        begun = meter.now()
        trace = meter.trace(begun + 0.8)
        assert meter.refresh_s() == pytest.approx(0.1, rel=0.9)
        assert trace.t[-1] <= meter.now()
    assert mean_watts(trace, begun, begun + 0.8) == pytest.approx(4.5)
    assert np.all(np.diff(trace.t) >= 0)


def test_bad_lines_are_named_once_and_the_others_count(tmp_path):
    body = "say(1)\nsay('oops')\nsay('# a remark')\nwhile True:\n    say(2)\n    time.sleep(0.01)\n"
    with ExternalMeter(command(tmp_path, body)) as meter:
        meter.trace(meter.now())
        (warning,) = meter.warnings
    assert "2 ('oops')" in warning
    assert "1 of" in warning


def test_lines_in_bursts_without_a_time_are_remarked(tmp_path):
    body = "while True:\n    print('1\\n' * 50, flush=True)\n    time.sleep(0.1)\n"
    with ExternalMeter(command(tmp_path, body)) as meter:
        meter.trace(meter.now())
        assert "bursts" in meter.warnings[0]


def test_a_clock_that_is_set_meanwhile_is_remarked_and_arrivals_count(tmp_path):
    body = "for i in range(10**6):\n    say(time.time() - (1000 if i > 20 else 0), 3)\n    time.sleep(0.01)\n"
    begun = ExternalMeter.now()
    with ExternalMeter(command(tmp_path, body)) as meter:
        while len((trace := meter.trace(meter.now())).t) < 30:
            pass
        assert "clock was set" in meter.warnings[0]
        assert begun < trace.t[0] < trace.t[-1] <= meter.now()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("sys.exit('no USB meter found')\n", "ended with code 1 after 0 readings: no USB meter found"),
        ("say('W')\nsys.exit(3)\n", "ended with code 3 after 0 readings"),
    ],
)
def test_a_meter_that_ends_at_once_is_an_error_that_names_it(tmp_path, body, what):
    with pytest.raises(UserError, match=what) as e, ExternalMeter(command(tmp_path, body)):
        pass
    assert "meter.py" in e.value.where


def test_a_meter_that_dies_in_between_is_an_error(tmp_path):
    body = "for _ in range(30):\n    say(1)\n    time.sleep(0.01)\nsys.exit('unplugged')\n"
    with ExternalMeter(command(tmp_path, body)) as meter, pytest.raises(UserError, match="30 readings: unplugged"):
        meter.trace(math.inf)


def test_a_meter_that_says_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("edgelathe.measure.meter.FIRST_LINE", 0.3)
    with pytest.raises(UserError, match="gave no reading"), ExternalMeter(command(tmp_path, "time.sleep(60)\n")):
        pass


@pytest.mark.parametrize(("text", "what"), [("no-such-meter -x", "cannot be started"), ("", "empty"), ("'a", "words")])
def test_a_command_that_is_none(text, what):
    with pytest.raises(UserError, match=what), ExternalMeter(text):
        pass


def test_no_shell_reads_the_command(tmp_path):
    with pytest.raises(UserError, match="ended"), ExternalMeter(f"echo 1 oops; touch {tmp_path}/made"):
        pass
    assert not (tmp_path / "made").exists()


def test_it_is_ended_with_all_that_it_started_and_no_thread_stays(tmp_path):
    pid = tmp_path / "pid"
    body = (
        "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen(['sleep', '600'])\nopen({str(pid)!r}, 'w').write(str(child.pid))\n"
        "while True:\n    say(1)\n    time.sleep(0.01)\n"
    )
    before = set(threading.enumerate())
    with ExternalMeter(command(tmp_path, body)):
        pass
    child = Path(f"/proc/{pid.read_text()}")
    for _ in range(6000):
        if not child.exists() or " Z " in (child / "stat").read_text():
            break
        time.sleep(0.01)
    else:
        pytest.fail("what the meter started runs on")
    assert set(threading.enumerate()) <= before
