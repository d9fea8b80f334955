"""Tables on narrow terminals."""

import copy
import io

import pytest
from rich.console import Console
from rich.text import Text

from edgelathe.report import tables, terminal
from edgelathe.report.layout import Fitted, broken, shortened, tidy
from support import documents

LAYER = "model/activation/Relu;model/batch_normalization/FusedBatchNormV3;model/conv2d_2/Conv2D;model/conv2d_1/Conv2D1"


def lines(what, width):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def long_names(name):
    """A document whose models and layers have names as converters and folders make them."""
    document = copy.deepcopy(documents.DOCUMENTS[name])
    for at, result in enumerate(document.get("results", ())):
        result["model"] = f"experiments/of a long name/{at}/model_int8_per_channel.onnx"
        result |= {"grade": {"letter": "B", "reasons": ["unknown"]}}
    for c in document.get("comparisons", ()):
        c["a"], c["b"] = (r["model"] for r in document["results"])
    for row in [row for m in document.get("models", ()) for row in m["rows"]] + document.get("layers", []):
        if row.get("layer"):
            row["layer"] = LAYER
        if "name" in row:
            row |= {"name": LAYER, "steps": ["equalize", "int8", "int8-dynamic", "fp16", "prune", "sparse"]}
    return document


@pytest.mark.parametrize(("name", "of_a_row"), [
    ("inspect", ("…del/conv2d_1/Conv2D1", "Conv", "320", "18 k", "1.28 kB", "0.9 %")),
    ("bench", ("0/mode…_channel.onnx", "3.05", "3.35", "3.96", "1,200", "B")),
    ("trace", ("+1", "Conv", "180.0", "undecided")),
])  # fmt: skip
def test_at_80_columns_a_row_is_one_line(name, of_a_row):
    found = lines(terminal.render(long_names(name)), 80)
    assert max(map(len, found)) <= 80
    assert any(all(part in line for part in of_a_row) for line in found), "\n".join(found)


def test_one_traced_model_at_80_columns():
    document = long_names("trace")
    found = lines(terminal.render({**document, "models": document["models"][:1], "layers": []}), 80)
    row = next(line for line in found if "Conv2D1 +1" in line)
    assert row.split()[2:] == ["Conv", "float32", "179.5", "[178.0,", "?]", "99.7", "%", "99.7", "%"]


def test_intervals_go_below_their_figures_where_the_terminal_is_narrow():
    wide, narrow = (lines(terminal.render(documents.DOCUMENTS["bench"]), width) for width in (100, 60))
    assert any("3.05 [3.04, 3.06]" in line for line in wide)
    at = next(i for i, line in enumerate(narrow) if "3.05" in line)
    assert narrow[at].split() == ["a.onnx", "3.05", "3.35", "3.96", "1,200"]
    assert narrow[at + 1].split("]")[0].strip() == "[3.04, 3.06"


def test_a_file_shows_whole_names():
    assert LAYER in terminal.text(terminal.render(long_names("inspect")))


def test_names_keep_their_ends_and_no_more_characters_are_taken_than_needed():
    assert shortened(LAYER, 20) == "model/…v2d_1/Conv2D1"
    assert shortened("short", 20) == "short"

    def layout(most):
        made = tables.table(">name", ">n")
        made.add_row(shortened("x" * 40, most), "1234")
        return made

    for width in (30, 40, 60):
        (_, row) = lines(Fitted(["x" * 40], layout), width)
        assert len(row) == min(width, 47)
        assert row.endswith(" 1234")


def test_no_digit_is_cut_off_where_nothing_fits():
    table = tables.table(">name", ">figure")
    table.add_row("abcdefgh", "123456789")
    assert "".join(x for line in lines(tidy(table), 12) for x in line if x.isdigit()) == "123456789"


def test_what_may_fold_folds_between_words():
    table = tables.table(">name", "runtimes", "why")
    table.add_row("cam-1", Text("onnxruntime 1.32.0, ai-edge-litert 2.3.0"), Text("no answer from cam-1:22"))
    found = [word for line in lines(tidy(table), 40) for word in line.split()]
    assert {"cam-1", "onnxruntime", "ai-edge-litert", "answer", "cam-1:22"} <= set(found)


def test_recipes_break_behind_a_step():
    assert broken("fold+equalize+int8(scale=mse)", 14) == "fold+equalize+\nint8(scale=mse)"
    assert broken("fold+int8", 14) == "fold+int8"
    fit = documents.fit(candidates=[documents.INT8.with_(recipe="fold+equalize+prune(channels=0.3)+int8(scale=mse)")])
    found = lines(terminal.candidates(fit), 72)
    assert any(line.strip() == "int8(scale=mse)" for line in found), "\n".join(found)


def test_very_long_names_stand_behind_the_figures():
    document = long_names("inspect")
    document["layers"][0]["name"] = "model/" + LAYER
    heading, row = terminal.text(terminal.render(document)).splitlines()[4:6]
    assert heading.split()[0] == "op"
    assert row.split() == ["Conv", "320", "18", "k", "1.28", "kB", "0.9", "%", "model/" + LAYER]
    (row,) = [line for line in lines(terminal.render(document), 80) if "1.28 kB" in line]
    assert row.endswith("v2d_1/Conv2D1")
