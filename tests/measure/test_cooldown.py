from edgelathe.measure.cooldown import cool_down, load


class Device:
    """Says `throttled`, Celsius and others' share by the seconds that passed."""

    def __init__(self, throttled=lambda t: False, celsius=lambda t: 50.0, share=lambda t: 0.0):
        self.t, self.busy, self.by = 0.0, 0.0, (throttled, celsius, share)

    def sense(self):
        throttled, celsius, _ = (f(self.t) for f in self.by)
        cpu = {"busy": self.busy, "idle": 4 * self.t - self.busy}
        return {"throttled": throttled, "temperatures_c": {"cpu": celsius}, "cpu_s": cpu}

    def sleep(self, seconds):
        self.busy += 4 * seconds * self.by[2](self.t)
        self.t += seconds

    def cool(self, seconds):
        return cool_down(self, seconds * 1000, clock=lambda: self.t, sleep=self.sleep)


def test_it_waits_while_the_device_throttles():
    device = Device(throttled=lambda t: t < 10)
    assert device.cool(30)
    assert 10 <= device.t < 13


def test_it_waits_while_the_device_gets_cooler():
    device = Device(celsius=lambda t: 80 - min(t, 12))
    assert device.cool(30)
    assert 12 <= device.t < 17


def test_it_waits_for_others_to_end_but_not_for_ever():
    ending = Device(share=lambda t: 0.8 if t < 6 else 0.0)
    assert ending.cool(30)
    assert ending.t < 12
    staying = Device(share=lambda t: 0.8)
    assert not staying.cool(30)
    assert staying.t < 12


def test_it_ends_at_the_time_given_and_says_that_it_still_throttles():
    device = Device(throttled=lambda t: True)
    assert not device.cool(30)
    assert 30 <= device.t < 33


def test_a_device_that_tells_nothing_is_not_waited_for():
    class Mute:
        def sense(self):
            return {}

    slept = []
    assert cool_down(Mute(), 30_000, clock=lambda: float(sum(slept)), sleep=slept.append)
    assert sum(slept) < 5


def test_load_is_a_share_of_all_cpus():
    a, b = ({"cpu_s": {"busy": n, "idle": 3 * n}} for n in (1.0, 2.0))
    assert load(a, b) == 0.25
    assert load({}, b) is None
