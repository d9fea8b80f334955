"""The device made quiet for the length of a `with`, over a real agent."""

from __future__ import annotations

import pytest

from edgelathe.core.errors import UserError
from edgelathe.device.open import open_device
from edgelathe.device.tune import Change, Tuning, restore, tune, tuned


def test_a_device_is_tuned_for_so_long_and_says_what_it_did(local):
    with open_device(local) as device:
        with tuned(device) as tuning:
            assert tuning.changed or tuning.refused or device.client.request("probe").head["governor"]
        assert device.client.request("probe").head["tuning"] is None
        assert restore(device.client) == Tuning((), ())


@pytest.mark.parametrize("cut", [False, True])
def test_what_goes_wrong_meanwhile_is_what_is_told(local, cut):
    def fail(device):
        with tuned(device):
            if cut:
                device.client.close()  # nothing can be asked any more; the guard restores
            raise KeyError("what")

    with open_device(local) as device, pytest.raises(KeyError):
        fail(device)
    with open_device(local) as device:
        assert device.client.request("probe").head["tuning"] is None


def test_keeping_without_a_time_is_refused(local):
    with open_device(local) as device, pytest.raises(Exception, match=r"tune\.seconds") as e:
        tune(device.client, keep=True, seconds=0)
    assert not isinstance(e.value, UserError)


def test_changes_in_words_and_in_json():
    tuning = Tuning((Change("a", "x", "y"),), (Change("b", "x", "x", "not allowed"),))
    assert [str(c) for c in (*tuning.changed, *tuning.refused)] == ["a: x -> y", "b: not allowed"]
    assert tuning.to_json() == {
        "changed": [{"what": "a", "was": "x", "is": "y", "why": ""}],
        "refused": [{"what": "b", "was": "x", "is": "x", "why": "not allowed"}],
    }
