"""How quick the command itself is: `--help` against importing typer and rich, and an ONNX compress from the shell."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import cli

pytestmark = pytest.mark.bench

IMPORTS = [sys.executable, "-c", "import typer.main, rich.console, rich.table, rich.panel"]
HELP = [sys.executable, "-m", "edgelathe.cli.main", "--help"]


def test_help_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    times: dict[str, list[float]] = {"help": [], "imports": []}
    for _ in range(10):
        for name, command in (("help", HELP), ("imports", IMPORTS)):
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - start)
    best = {name: min(values) for name, values in times.items()}
    with capsys.disabled():
        print(f"\n--help {best['help']:.3f} s, importing typer and rich {best['imports']:.3f} s")
    assert best["help"] <= 2 * best["imports"]


def test_int8_of_resnet8(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data_dir / "cifar10_resnet8"
    calib = tmp_path / "calib.toml"
    calib.write_text(f'path = "{folder}/calib.npz"\nlimit = 256\n')
    start = time.perf_counter()
    document = cli.answer(
        "compress", folder / "model.onnx", "--recipe", "int8", "--data", calib, "--profile", "arm-cpu",
        "-o", tmp_path / "int8.onnx",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    steps = sum(step["seconds"] for step in document["steps"])
    with capsys.disabled():
        print(f"\nint8 of ResNet8, 256 samples: {seconds:.2f} s from the shell, {steps:.2f} s of work, "
              f"{document['bytes_after']:,} bytes")  # fmt: skip
    assert document["bytes_after"] < 105_000
