import subprocess
import sys

import pytest

CHILD = """
import re
from pathlib import Path
import numpy as np
from edgelathe.core.memory import give_back

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

held = [np.ones(12_000) for _ in range(600)]  # 58 MB in blocks that come from the heap
last = held[-1]  # at its end, so that it cannot simply shrink
del held
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_blocks_below_one_in_use_go_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 40_000_000
