"""Every call is in the file, with its place and the marks of its block."""

import csv
import json

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.measure import export
from edgelathe.measure.bench import bench_document
from edgelathe.measure.plan import Job, scenario
from support.benching import OPTIONS, FakeDevice, models


def made(path, *, throttled=False):
    device = FakeDevice()
    device.machine.throttled = throttled
    device._calls = (lambda i: 1_000_000 + i,)
    job = Job(scenario(period_ms=20), min_ms=200.0, max_ms=2000.0, cool_down_ms=0.0)
    return bench_document(device, models(1), [OPTIONS], None, job, raw=path)


def test_the_three_forms_say_the_same(tmp_path):
    for suffix in export.SUFFIXES:
        document = made(tmp_path / f"raw{suffix}", throttled=True)
    with (tmp_path / "raw.csv").open() as f:
        lines = list(csv.reader(f))
    doc = json.loads((tmp_path / "raw.json").read_text())
    arrays = np.load(tmp_path / "raw.npz")
    assert tuple(lines[0]) == tuple(doc["columns"]) == tuple(arrays) == export.COLUMNS
    assert [[str(v) for v in row] for row in doc["rows"]] == lines[1:]
    assert arrays["ns"].tolist() == [row[6] for row in doc["rows"]]
    lanes = {lane: int((arrays["lane"] == lane).sum()) for lane in ("scenario", "back-to-back")}
    (r,) = document["results"]
    assert lanes == {"scenario": r["latency_ms"]["n"], "back-to-back": r["paced"]["back_to_back_ms"]["n"]}
    assert set(arrays["marks"]) == {"throttled"}
    assert arrays["start_s"].min() == 0


def test_calls_of_a_block_follow_one_another(tmp_path):
    made(tmp_path / "raw.npz")
    arrays = np.load(tmp_path / "raw.npz")
    one = (arrays["lane"] == "back-to-back") & (arrays["block"] == 1)
    np.testing.assert_array_equal(arrays["call"][one], np.arange(one.sum()))
    np.testing.assert_allclose(np.diff(arrays["start_s"][one]), arrays["ns"][one][:-1] / 1e9, atol=2e-9)


def test_a_file_that_cannot_be_is_refused_before(tmp_path):
    for path in (tmp_path / "raw.parquet", tmp_path / "no" / "raw.csv"):
        with pytest.raises(UserError, match="raw"):
            export.check(path)
