"""The packaged profiles, which of them fits a device, and what follows from it."""

from pathlib import Path

import pytest

from edgelathe.core import profile as profiles
from edgelathe.core.device import Probe, Runtime
from edgelathe.core.errors import UserError

NAMES = [
    "arm-cpu", "jetson-agx-orin", "jetson-agx-thor", "jetson-gpu", "jetson-nano", "jetson-orin-nano", "jetson-orin-nx",
    "jetson-xavier-nx", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w", "rk3588",
    "x86-cpu",
]  # fmt: skip

# As /proc/device-tree/model reads on the boards, NUL and all.
BOARDS = {
    "Raspberry Pi 3 Model B Rev 1.2\0": "raspberry-pi-3",
    "Raspberry Pi 3 Model B Plus Rev 1.3\0": "raspberry-pi-3",
    "Raspberry Pi 3 Model A Plus Rev 1.0\0": "raspberry-pi-3",
    "Raspberry Pi Compute Module 3 Plus Rev 1.0\0": "raspberry-pi-3",
    "Raspberry Pi Zero 2 W Rev 1.0\0": "raspberry-pi-zero-2w",
    "Raspberry Pi 4 Model B Rev 1.4\0": "raspberry-pi-4",
    "Raspberry Pi 400 Rev 1.0\0": "raspberry-pi-4",
    "Raspberry Pi Compute Module 4 Rev 1.1\0": "raspberry-pi-4",
    "Raspberry Pi Compute Module 4S Rev 1.0\0": "raspberry-pi-4",
    "Raspberry Pi 5 Model B Rev 1.0\0": "raspberry-pi-5",
    "Raspberry Pi 500 Rev 1.0\0": "raspberry-pi-5",
    "Raspberry Pi Compute Module 5 Rev 1.0\0": "raspberry-pi-5",
    "Raspberry Pi 2 Model B Rev 1.1\0": "arm-cpu",
    "Radxa ROCK 5B\0": "rk3588",
    "Radxa ROCK 5 Model A\0": "rk3588",
    "Radxa ROCK 5 ITX\0": "rk3588",
    "Radxa ROCK 3A\0": "arm-cpu",
    "RK3588 OPi 5 Plus\0": "rk3588",
    "Xunlong Orange Pi 5 Plus\0": "rk3588",
    "FriendlyElec NanoPC-T6\0": "rk3588",
    "NVIDIA Jetson Nano Developer Kit\0": "jetson-nano",
    "NVIDIA Jetson Nano 2GB Developer Kit\0": "jetson-nano",
    "NVIDIA Jetson Xavier NX Developer Kit (SD-card)\0": "jetson-xavier-nx",
    "NVIDIA Jetson AGX Xavier Developer Kit\0": "jetson-gpu",
    "NVIDIA Jetson Orin Nano Developer Kit\0": "jetson-orin-nano",
    "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0": "jetson-orin-nano",
    "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0": "jetson-orin-nx",
    "NVIDIA Jetson AGX Orin Developer Kit\0": "jetson-agx-orin",
    "NVIDIA Jetson AGX Thor Developer Kit\0": "jetson-agx-thor",
    "Avaota A1\0": "arm-cpu",
}


def probe(machine="aarch64", model=None, features=(), runtimes=(), **more):
    fields = {
        "name": "cam",
        "cpu": "",
        "cores": 4,
        "memory_bytes": 1 << 30,
        "python": "3.11.2",
        "emulated": False,
        **more,
    }
    return Probe(machine=machine, model=model, features=frozenset(features), runtimes=tuple(runtimes), **fields)


def user_profile(home: Path, name: str, text: str) -> Path:
    folder = home / "config" / "edgelathe" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_all_classes_are_there():
    assert profiles.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_packaged_profile_is_clean_and_whole(name):
    assert profiles.check(name) == []
    loaded = profiles.load(name)
    assert loaded.name == name
    assert loaded.title
    assert {"onnx", "tflite"} == set(loaded.recipes)
    for format in ("onnx", "tflite"):
        assert profiles.runtimes_for(loaded, format, None)
        assert len(set(loaded.recipes[format])) == len(loaded.recipes[format]) >= 3
    assert loaded.fast_dtypes
    assert loaded.channel_multiple in (8, 16)


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_has_its_source(name):
    """A comment on the fact's own line, or a comment line in its block, above it."""
    bare = []
    for block in Path(profiles.load(name).path).read_text().split("\n\n"):
        above = False
        for line in block.splitlines():
            above = above or line.startswith("#")
            fact = " = " in line and not line.startswith("extends")
            if fact and not above and "  # " not in line:
                bare.append(line)
    assert [line for line in bare if not line.startswith("title")] == []


@pytest.mark.parametrize(("model", "name"), BOARDS.items(), ids=[m.strip("\0") for m in BOARDS])
def test_board_gets_its_profile(model, name):
    assert profiles.propose(probe(model=model)).name == name


def test_a_board_under_a_32_bit_system_is_still_that_board():
    assert profiles.propose(probe("armv7l", "Raspberry Pi 4 Model B Rev 1.4")).name == "raspberry-pi-4"


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "x86-cpu"), ("aarch64", "arm-cpu"), ("armv7l", "arm-cpu")])
def test_a_machine_without_board_model_gets_the_generic_profile(machine, name):
    assert profiles.propose(probe(machine)).name == name


def test_an_emulated_board_gets_the_generic_profile():
    assert profiles.propose(probe(model="Raspberry Pi 5 Model B Rev 1.0", emulated=True)).name == "arm-cpu"


def test_a_pc_is_no_board_whatever_it_calls_itself():
    assert profiles.propose(probe("x86_64", "NVIDIA Jetson Nano")).name == "x86-cpu"


def test_an_unknown_machine_is_refused():
    with pytest.raises(UserError, match=r"cam: no profile is for machine 'riscv64'.*--profile"):
        profiles.propose(probe("riscv64"))


def test_the_users_profile_wins_where_it_says_more(own_home):
    text = 'extends = "raspberry-pi-4"\nmatch = ["^Raspberry Pi 4 Model B Rev 1.5"]\n'
    user_profile(own_home, "shelf-cam", text)
    assert "shelf-cam" in profiles.names()
    assert profiles.propose(probe(model="Raspberry Pi 4 Model B Rev 1.5")).name == "shelf-cam"
    assert profiles.propose(probe(model="Raspberry Pi 4 Model B Rev 1.4")).name == "raspberry-pi-4"


def test_a_profile_that_extends_a_board_does_not_claim_the_board(own_home):
    user_profile(own_home, "shelf-cam", 'extends = "raspberry-pi-4"\nthreads = 2\n')
    assert profiles.propose(probe(model="Raspberry Pi 4 Model B Rev 1.5")).name == "raspberry-pi-4"


def test_choose_takes_the_users_word_then_the_devices_then_the_proposal():
    cam = probe(model="Raspberry Pi 4 Model B Rev 1.4")
    assert profiles.choose("rk3588", cam).name == "rk3588"
    assert profiles.choose(None, probe(profile="raspberry-pi-3")).name == "raspberry-pi-3"
    assert profiles.choose(None, cam).name == "raspberry-pi-4"
    with pytest.raises(UserError, match="--profile"):
        profiles.choose(None, None)


def test_probed_features_overrule_the_guess():
    pi5 = profiles.load("raspberry-pi-5")
    assert profiles.hardware(pi5, None).features == {"sdot", "fp16"}
    flags = ["fp", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"]
    assert profiles.hardware(pi5, probe(features=flags)).features == {"sdot", "fp16", "i8mm", "bf16"}
    assert profiles.hardware(pi5, probe(features=["fp", "asimd"])).features == frozenset()


def test_flags_of_another_kind_of_machine_do_not_count():
    hardware = profiles.hardware(profiles.load("raspberry-pi-5"), probe("x86_64", features=["avx2", "avx512_vnni"]))
    assert hardware.features == {"sdot", "fp16"}
    assert hardware.machine == "aarch64"


def test_a_device_that_tells_no_flags_is_as_its_profile_says():
    assert profiles.hardware(profiles.load("rk3588"), probe()).features == {"sdot", "fp16"}


def test_tensor_cores_outlive_a_probe_of_the_cpu():
    hardware = profiles.hardware(profiles.load("jetson-orin-nano"), probe(features=["asimd", "asimddp"]))
    assert hardware.features == {"sdot", "tensor-cores"}
    assert hardware.channel_multiple == 16


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        (["avx2", "fma"], {"avx2"}),
        (["avx2", "avx512f", "avx512_vnni"], {"avx2", "avx512", "vnni"}),
        (["avx2", "avx_vnni"], {"avx2", "vnni"}),
        (["avx2", "amx_int8", "avx512_bf16"], {"avx2"}),
        (["sse4_2"], set()),
    ],
)
def test_x86_flags(flags, features):
    assert profiles.hardware(profiles.load("x86-cpu"), probe("x86_64", features=flags)).features == features


def test_runtimes_are_those_that_the_device_has_in_the_profiles_order():
    jetson = profiles.load("jetson-orin-nano")
    ort = Runtime("onnxruntime", "1.23.0", ("CPUExecutionProvider", "CUDAExecutionProvider"))
    tflite = Runtime("tflite-runtime", "2.14.0", ("CPU",))
    device = probe(runtimes=[tflite, ort])
    found = profiles.runtimes_for(jetson, "onnx", device)
    assert [c.provider for c in found] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [c.runtime for c in profiles.runtimes_for(jetson, "tflite", device)] == ["tflite-runtime"]
    assert profiles.runtimes_for(jetson, "tflite", probe(runtimes=[ort])) == ()


def test_tflite_prefers_the_newer_runtime():
    names = [c.runtime for c in profiles.runtimes_for(profiles.load("x86-cpu"), "tflite", None)]
    assert names == ["ai-edge-litert", "tflite-runtime"]


def test_a_profile_as_json_can_be_printed():
    import json

    document = json.loads(json.dumps(profiles.load("raspberry-pi-5").to_json()))
    assert document["name"] == "raspberry-pi-5"
    assert document["features"] == ["fp16", "sdot"]
    assert document["runtimes"][0] == {
        "runtime": "onnxruntime", "provider": "CPUExecutionProvider", "threads": 4, "config": {},
    }  # fmt: skip


def test_a_jetson_runs_half_precision_on_tensorrt_and_falls_back_by_what_is_there():
    jetson = profiles.load("jetson-orin-nano")
    trt = Runtime("onnxruntime", "1.19", ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"))
    cpu = Runtime("onnxruntime", "1.19", ("CPUExecutionProvider",))
    own = Runtime("tensorrt", "8.2.1", ("TensorRT",))
    firsts = [profiles.runtimes_for(jetson, "onnx", probe(runtimes=r))[0] for r in ((trt, own), (cpu, own), (cpu,))]
    assert [(c.runtime, c.provider) for c in firsts] == [
        ("onnxruntime", "TensorrtExecutionProvider"), ("tensorrt", "TensorRT"), ("onnxruntime", "CPUExecutionProvider"),
    ]  # fmt: skip
    assert firsts[0].config["provider.trt_fp16_enable"] == "True"
    assert firsts[1].config == {"provider.fp16": "1"}
