"""The result folder: all files or none."""

import json
from pathlib import Path

import pytest

from edgelathe.core.errors import HostError, UserError
from edgelathe.report import write
from edgelathe.report.document import dumps
from edgelathe.report.write import check_folder, write_results
from support import documents

FIVE = {"model.onnx", "recipe.toml", "result.json", "report.html", "junit.xml"}


def results(folder, **changes):
    parts = {
        "model_bytes": b"model", "model_suffix": "onnx", "recipe_toml": "[[step]]\n", "document": documents.fit(),
        "html": "<html>±", "junit": "<x/>",
    }  # fmt: skip
    return write_results(folder, **{**parts, **changes})


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_five_files_in_a_fresh_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    written = results(folder)
    assert names(folder) == FIVE == {p.name for p in written}
    assert (folder / "model.onnx").read_bytes() == b"model"
    assert (folder / "result.json").read_text() == dumps(documents.fit()) + "\n"
    assert (folder / "report.html").read_text(encoding="utf-8") == "<html>±"


def test_a_second_fit_replaces_all_and_the_model_of_another_format(tmp_path):
    results(tmp_path)
    results(tmp_path, model_suffix=".tflite", model_bytes=b"other", document=documents.fit(run="two"))
    assert names(tmp_path) == FIVE - {"model.onnx"} | {"model.tflite"}
    assert json.loads((tmp_path / "result.json").read_text())["run"] == "two"


def test_a_folder_with_other_files_is_refused_without_force(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for act in (check_folder, results):
        with pytest.raises(
            UserError, match=r"holds other files \('thesis.tex'\); name a new folder with -o, or add --force"
        ):
            act(tmp_path)
    assert names(tmp_path) == {"thesis.tex"}
    check_folder(tmp_path, force=True)
    results(tmp_path, force=True)
    assert names(tmp_path) == FIVE | {"thesis.tex"}


def test_a_folder_that_cannot_be_is_refused_early(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be made"):
        check_folder(tmp_path / "file" / "out")
    check_folder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / f".result.json{write.PART}").write_text("half")
    check_folder(tmp_path)
    results(tmp_path)
    assert names(tmp_path) == FIVE


def fail_at(monkeypatch, at, error):
    """The write or rename number `at` fails."""
    calls = iter(range(1000))

    def failing(real):
        def call(*args):
            if next(calls) == at:
                raise error
            return real(*args)

        return call

    monkeypatch.setattr(write, "_write", failing(write._write))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))


STOPS = pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left")], ids=["ctrl-c", "full disk"]
)


@STOPS
@pytest.mark.parametrize("at", range(10))
def test_stopped_anywhere_a_fresh_folder_is_gone(tmp_path, monkeypatch, error, at):
    fail_at(monkeypatch, at, error)
    with pytest.raises((KeyboardInterrupt, HostError)):
        results(tmp_path / "a" / "b")
    assert names(tmp_path) == set()


@STOPS
@pytest.mark.parametrize("at", range(15))
def test_stopped_anywhere_an_old_folder_is_as_it_was(tmp_path, monkeypatch, error, at):
    results(tmp_path, model_suffix="tflite", document=documents.fit(run="old"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    fail_at(monkeypatch, at, error)
    with pytest.raises((KeyboardInterrupt, HostError)):
        results(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_is_one_line_with_the_mend(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(write, "_write", full)
    with pytest.raises(HostError, match=r"No space left on device.*kept in the store"):
        results(tmp_path / "out")


def test_a_document_that_is_no_json_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        results(tmp_path / "out", document={"x": float("nan")})
    assert not (tmp_path / "out").exists()
