import sys

import pytest
from packaging.tags import sys_tags

from edgelathe.core.device import Probe
from edgelathe.core.errors import UserError
from edgelathe.device import wheels
from support.wheels import tiny


def probe(machine="aarch64", python="3.11.2", libc="glibc 2.31", bits=64):
    return Probe("cam", machine, "cpu", 4, 1 << 30, python, (), False, extra={"libc": libc, "bits": bits})


PI = probe()


def test_the_tags_of_this_machine_are_those_that_packaging_finds():
    import platform

    here = probe(platform.machine(), platform.python_version(), " ".join(platform.libc_ver()))
    if platform.libc_ver()[0] != "glibc" or sys.implementation.name != "cpython":
        pytest.skip("not a glibc CPython")
    ours, theirs = wheels.tags(here), list(sys_tags())
    assert set(map(str, theirs)) == set(map(str, ours))


@pytest.mark.parametrize(
    ("device", "fits", "does_not"),
    [
        (PI, "manylinux_2_28_aarch64", "manylinux_2_34_aarch64"),
        (PI, "manylinux2014_aarch64", "manylinux2014_x86_64"),
        (probe(bits=32), "manylinux_2_31_armv7l", "manylinux_2_28_aarch64"),
        (probe("armv7l"), "linux_armv7l", "manylinux2010_armv7l"),
        (probe("x86_64", libc="glibc 2.17"), "manylinux1_x86_64", "manylinux_2_28_x86_64"),
        (probe(libc=None), "musllinux_1_1_aarch64", "manylinux2014_aarch64"),
    ],
)
def test_platforms(device, fits, does_not):
    assert fits in wheels.platforms(device)
    assert does_not not in wheels.platforms(device)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp39-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("a-1-cp312-abi3-manylinux2014_aarch64.whl", False),
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-py2-none-any.whl", False),
        ("a-1-py3-none-manylinux_2_36_aarch64.whl", False),
    ],
)
def test_what_fits(tmp_path, name, fits):
    tiny(tmp_path, name)
    assert bool(wheels.fitting(tmp_path, PI)) is fits


def test_the_newest_version_then_the_best_tag_is_taken(tmp_path):
    tiny(tmp_path, "a-1.9-cp311-cp311-manylinux2014_aarch64.whl")
    tiny(tmp_path, "a-1.10-py3-none-any.whl")
    best = tiny(tmp_path, "a-1.10-cp311-cp311-manylinux_2_28_aarch64.whl")
    (tmp_path / "nonsense.whl").write_text("")
    assert wheels.fitting(tmp_path, PI) == {"a": best}


def test_what_a_wheel_requires_on_the_device_comes_along(tmp_path):
    markers = ('Old.Name; python_version < "3.9"', 'extra-thing; extra == "x"', 'win; sys_platform == "win32"')
    needs = ("numpy>=1", "missing_one", *markers)
    tiny(tmp_path, "onnxruntime-1-cp311-cp311-manylinux2014_aarch64.whl", needs)
    tiny(tmp_path, "numpy-2-cp311-cp311-manylinux2014_aarch64.whl")
    tiny(tmp_path, "unrelated-2-py3-none-any.whl")
    chosen = wheels.choose(tmp_path, ["onnxruntime"], PI)
    assert [p.name.split("-")[0] for p in chosen.wheels] == ["onnxruntime", "numpy"]
    assert chosen.missing == ("missing-one",)


def test_a_folder_where_none_fits_names_the_wheel_that_would(tmp_path):
    tiny(tmp_path, "onnxruntime-1-cp312-cp312-manylinux2014_x86_64.whl")
    with pytest.raises(UserError) as caught:
        wheels.choose(tmp_path, ["onnxruntime"], PI)
    text = str(caught.value)
    assert "onnxruntime-*-cp311-cp311-manylinux_2_28_aarch64.whl" in text
    assert "pip download onnxruntime" in text
    assert "--python-version 3.11 --platform manylinux_2_28_aarch64" in text
    with pytest.raises(UserError, match=r"ai_edge_litert-\*-cp38-cp38-manylinux_2_24_aarch64.whl"):
        wheels.choose(tmp_path, ["ai-edge-litert"], probe(python="3.8.10", libc="glibc 2.24"))
    with pytest.raises(UserError, match="no such folder"):
        wheels.choose(tmp_path / "nowhere", ["onnxruntime"], PI)


def test_what_is_no_wheel_inside_is_told(tmp_path):
    (tmp_path / "onnxruntime-1-py3-none-any.whl").write_text("no zip")
    with pytest.raises(UserError, match="not a wheel"):
        wheels.choose(tmp_path, ["onnxruntime"], PI)
