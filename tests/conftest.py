"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(
        _name, "1"
    )  # tests run side by side, and numpy reads these when it is loaded: by the next lines

import pytest  # noqa: E402

from edgelathe.device.open import LOCAL, Device, open_device  # noqa: E402

DATA = Path(os.environ.get("EDGELATHE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real models and data; without them the test is skipped, by name."""
    if not (DATA / "cifar10_resnet8").is_dir():
        pytest.skip(f"REAL DATA MISSING at {DATA}: set EDGELATHE_TEST_DATA")
    return DATA


@pytest.fixture
def device(own_home: Path) -> Iterator[Device]:
    """This machine as a device, with its real agent."""
    with open_device(LOCAL) as opened:
        yield opened


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own store, config or cache."""
    home = tmp_path_factory.mktemp("home")
    for kind in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    for name in ("EDGELATHE_STORE", "EDGELATHE_SSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return home
