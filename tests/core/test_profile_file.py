"""Profile files: what they inherit, and how each mistake is explained."""

from pathlib import Path

import pytest

from edgelathe.core import profile as profiles
from edgelathe.core.errors import UserError
from edgelathe.core.profile_fields import KEYS, RUNTIME_KEYS, memory_bytes
from edgelathe.core.profile_types import DTYPES, FEATURES, RUNTIMES

WHOLE = """
title = "Board"
memory = "1 GiB"
features = []
fast_dtypes = ["int8"]
channel_multiple = 8
[[runtime]]
name = "onnxruntime"
provider = "CPUExecutionProvider"
[recipes]
onnx = ["int8"]
"""


def write(folder: Path, text: str, name: str = "profile.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def explained(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    return [str(p).replace(f"{folder}/", "") for p in profiles.check(path)]


# One mistake each: lines added to `extends = "x86-cpu"`, and the explanation after the file's name.
ORT = '[[runtime]]\nname = "onnxruntime"\n'
SIZE = 'give a number and a unit, as in "512 MiB" or "4 GiB"'
QUOTES = 'write it in quotes, as in "aarch64"'
PLAIN = "write it without quotes, as in 4"
MISTAKES = [
    ("threds = 4", "unknown key 'threds'; did you mean 'threads'?"),
    ('threads = "4"', f"threads: wanted a whole number, found text: '4'; {PLAIN}"),
    ("threads = true", f"threads: wanted a whole number, found true or false: True; {PLAIN}"),
    ("threads = 0", "threads: 0 is out of range; give 1 to 1024"),
    ("title = 3", f"title: wanted text, found a whole number: 3; {QUOTES}"),
    ('title = ""', "title: is empty; fill it or leave the key out"),
    ("memory = 4", f"memory: wanted text, found a whole number: 4; {SIZE}"),
    ('memory = "4 Gib"', f"memory: '4 Gib' is no size; {SIZE}"),
    ('match = "Pi"', "match: wanted a list, found text: 'Pi'; write it in brackets, as in [\"int8\"]"),
    ('match = ["["]', "match[0]: '[' is no regular expression: unterminated character set at position 0; "
     "quote special characters with a backslash"),
    ('features = ["avx2", "vni"]', "features[1]: unknown feature 'vni'; did you mean 'vnni'?"),
    ('fast_dtypes = ["flot16"]', "fast_dtypes[0]: unknown dtype 'flot16'; did you mean 'float16'?"),
    ('fast_dtypes = ["int8", "int8"]', "fast_dtypes[1]: 'int8' stands there twice; remove one"),
    ("[recipes]\nonxx = []", "recipes: unknown format 'onxx'; did you mean 'onnx'?"),
    ('[recipes]\nonnx = ["int8("]', "recipes.onnx[0]: recipe 'int8(': the bracket is not closed at character 5; "
     "the form is step(option=value,...)+step(...)"),
    ("recipes = []", 'recipes: wanted a table, found a list: []; write [recipes] and onnx = ["int8"] below it'),
    ("runtime = []", "runtime: names no runtime; write at least one [[runtime]] table"),
    ('runtime = "ort"', "runtime: wanted tables, found text: 'ort'; "
     'write [[runtime]] and name = "onnxruntime" below it'),
    ('[[runtime]]\nname = "onnxruntim"\nprovider = "CPU"', "runtime[0].name: unknown runtime 'onnxruntim'; "
     "did you mean 'onnxruntime'?"),
    (f'{ORT}provider = "CPUExecutionProvidr"', "runtime[0].provider: "
     "unknown provider 'CPUExecutionProvidr' of onnxruntime; did you mean 'CPUExecutionProvider'?"),
    (ORT, "runtime[0]: key 'provider' is missing; give it"),
    (f'{ORT}provider = "CPUExecutionProvider"\nthread = 2', "runtime[0]: unknown key 'thread'; "
     "did you mean 'threads'?"),
    (f'{ORT}provider = "CPUExecutionProvider"\nconfig = {{ a = 1 }}', "runtime[0].config.a: wanted text, "
     'found a whole number: 1; session entries are text: write "1" with quotes'),
    (f'{ORT}provider = "CUDAExecutionProvider"\nconfig.provider.device_id = "0"', "runtime[0].config.provider: "
     'wanted text, found a table; put the whole name in quotes, as in "provider.device_id"'),
    (f'{ORT}provider = "CPUExecutionProvider"\nconfig = {{ "edgelathe.io_bindng" = "1" }}', "runtime[0].config."
     "edgelathe.io_bindng: unknown entry 'edgelathe.io_bindng' of onnxruntime; did you mean 'io_binding'?"),
    (f'{ORT}provider = "CPUExecutionProvider"\nconfig = {{ "edgelathe.io_binding" = "yes" }}', "runtime[0].config."
     "edgelathe.io_binding: 'yes' is no value of it; one of 0, 1"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "explanation"), MISTAKES, ids=[lines for lines, _ in MISTAKES])
def test_each_mistake_is_explained(tmp_path, lines, explanation):
    assert explained(tmp_path, f'extends = "x86-cpu"\n{lines}\n') == [f"profile.toml: {explanation}"]


def test_an_option_that_is_not_known_is_a_warning(tmp_path):
    option = '"provider.trt_fp61_enable" = "True"'
    text = f'extends = "x86-cpu"\n{ORT}provider = "TensorrtExecutionProvider"\nconfig = {{ {option} }}\n'
    path = write(tmp_path, text)
    (found,) = profiles.check(path)
    assert found.warning
    assert str(found) == (
        f"{path}: runtime[0].config.provider.trt_fp61_enable: TensorrtExecutionProvider has no option "
        "'trt_fp61_enable' that is known here; did you mean 'trt_fp16_enable'?"
    )
    assert profiles.load(path).runtimes[0].config == {"provider.trt_fp61_enable": "True"}


def test_all_mistakes_at_once_and_load_raises_the_first(tmp_path):
    text = 'extends = "x86-cpu"\nthreds = 4\nmemory = 3\nfeatures = ["sdt"]\n'
    assert len(explained(tmp_path, text)) == 3
    with pytest.raises(UserError) as e:
        profiles.load(tmp_path / "profile.toml")
    assert str(e.value) == f"{tmp_path}/profile.toml: unknown key 'threds'; did you mean 'threads'?"


def test_what_is_missing_is_named(tmp_path):
    assert explained(tmp_path, WHOLE) == []
    found = explained(tmp_path, 'title = "Board"\n')
    assert [f.split("'")[1] for f in found] == [
        "runtime",
        "features",
        "fast_dtypes",
        "channel_multiple",
        "memory",
        "recipes",
    ]


@pytest.mark.parametrize("text", ["title = ", "\xff"])
def test_what_is_no_toml(tmp_path, text):
    (tmp_path / "profile.toml").write_bytes(text.encode("latin-1"))
    [problem] = profiles.check(tmp_path / "profile.toml")
    assert problem.what.startswith("not TOML: ")


def test_unknown_name_and_missing_file():
    with pytest.raises(UserError, match=r"profile 'raspbery-pi-4': .*did you mean 'raspberry-pi-4'\?"):
        profiles.load("raspbery-pi-4")
    with pytest.raises(UserError, match=r"nowhere\.toml: no such file"):
        profiles.check("nowhere.toml")


def test_a_base_that_is_not_there(tmp_path):
    assert explained(tmp_path, 'extends = "x86-cpus"\n') == [
        "profile.toml: extends: there is no profile 'x86-cpus'; did you mean 'x86-cpu'?"
    ]
    [problem] = profiles.check(write(tmp_path, 'extends = "base.toml"\n'))
    assert "there is no file" in problem.what


def test_a_mistake_in_a_base_is_told_of_the_base(tmp_path):
    write(tmp_path, WHOLE + "tflight = []\n", "base.toml")
    [problem] = explained(tmp_path, 'extends = "base.toml"\n')
    assert problem == "base.toml: recipes: unknown format 'tflight'; did you mean 'tflite'?"


def test_a_circle_is_found(tmp_path):
    write(tmp_path, 'extends = "b.toml"\n', "a.toml")
    write(tmp_path, 'extends = "a.toml"\n', "b.toml")
    with pytest.raises(UserError, match=r"goes round in a circle \(a -> b -> a\)"):
        profiles.load(tmp_path / "a.toml")
    with pytest.raises(UserError, match="circle"):
        profiles.load(write(tmp_path, 'extends = "self.toml"\n', "self.toml"))


def test_a_chain_inherits_all_but_what_it_says_itself(tmp_path):
    write(tmp_path, 'extends = "raspberry-pi-4"\nmemory = "8 GiB"\n[recipes]\nonnx = ["fp16"]\n', "big.toml")
    loaded = profiles.load(write(tmp_path, 'extends = "big.toml"\ntitle = "Cam"\nthreads = 2\n', "cam.toml"))
    pi4 = profiles.load("raspberry-pi-4")
    assert (loaded.name, loaded.title, loaded.memory_bytes) == ("cam", "Cam", 8 << 30)
    assert loaded.recipes == {"onnx": ("fp16",), "tflite": pi4.recipes["tflite"]}
    assert loaded.sensors == pi4.sensors
    assert loaded.match == ()
    assert {c.threads for c in loaded.runtimes} == {2}


def test_a_runtimes_own_threads_and_entries_win(tmp_path):
    text = WHOLE.replace("[recipes]", 'threads = 3\nconfig = { "session.disable_prepacking" = "1" }\n[recipes]')
    [choice] = profiles.load(write(tmp_path, "threads = 2\n" + text)).runtimes
    assert choice.threads == 3
    assert choice.config == {"session.disable_prepacking": "1"}


def test_the_users_folder_comes_first_and_may_extend_its_namesake(own_home):
    write(own_home, 'extends = "x86-cpu"\nthreads = 2\n', "config/edgelathe/profiles/x86-cpu.toml")
    loaded = profiles.load("x86-cpu")
    assert {c.threads for c in loaded.runtimes} == {2}
    assert loaded.features == {"avx2"}
    assert profiles.names().count("x86-cpu") == 1


@pytest.mark.parametrize(("text", "size"), [("512 MiB", 512 << 20), ("1.5GiB", 3 << 29), ("4 GB", 4 * 10**9)])
def test_memory(text, size):
    assert memory_bytes(text) == size


DOCS = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", [*KEYS, *RUNTIME_KEYS, *FEATURES, *DTYPES, *RUNTIMES])
def test_the_guide_knows_every_word(word):
    assert any(
        form in DOCS for form in (f"`{word}`", f"`[{word}]`", f"`[[{word}]]`", f" {word} ", f" {word}`", f"`{word} ")
    )


def test_the_guides_example_works(tmp_path):
    example = DOCS.split("```toml\n")[1].split("```")[0]
    assert explained(tmp_path, example) == []
