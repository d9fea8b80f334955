import subprocess
import sys

import pytest

CHILD = """
import contextlib, re, sys
from pathlib import Path
import numpy as np
from edgelathe.core.memory import give_back, returning

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

"""

SMALL = """
held = [np.ones(12_000) for _ in range(600)]  # 58 MB in blocks that come from the heap
last = held[-1]  # at its end, so that it cannot simply shrink
del held
before = resident()
give_back()
print(before - resident())
"""

LARGE = """
with returning() if sys.argv[1] == "returning" else contextlib.nullcontext():
    np.ones(3_900_000)  # freed: from now on glibc would take blocks of up to its size from the heap
    held = [np.ones(500_000) for _ in range(15)]  # 60 MB
    last = np.ones(120_000)  # behind them
    before = resident()
    del held
    print(before - resident())
"""


def freed(script, *arguments):
    command = [sys.executable, "-c", CHILD + script, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc")


def test_freed_blocks_below_one_in_use_go_back_to_the_system():
    assert freed(SMALL) > 40_000_000


def test_large_blocks_go_back_at_once_where_asked():
    assert freed(LARGE, "plain") < 20_000_000
    assert freed(LARGE, "returning") > 40_000_000
