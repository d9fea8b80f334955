"""The HTML report: self-contained, escaped, complete."""

import itertools
import re
from html.parser import HTMLParser

import pytest

from edgelathe.core.result import BudgetLine
from edgelathe.report.chart import BOTTOM, HEIGHT, LEFT, LINE, RIGHT, TOP, WIDTH, chart
from edgelathe.report.html import html
from support import documents

VOID = {"meta", "link", "br", "hr", "img", "input", "line", "rect", "circle"}


class Page(HTMLParser):
    """Checks nesting, and gathers tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def source():
    return html(documents.fit(), '[[step]]\nuse = "int8"\n', documents.judged())


def test_it_loads_nothing_and_runs_nothing(source):
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any(k in a for _, a in page.tags for k in ("src", "href", "srcset", "onclick", "onload"))
    assert not re.search(r"https?://|@import|url\(", source)


def test_it_tells_all_that_there_is(source):
    text = Page(source).text
    for part in (
        "✓ met",
        "met by int8: size 43.4 kB, drop 0.1 points; 1.6x faster",
        "size<=0.35x",
        "38.1 ± 0.6",
        "97.7 % of 540",
        "1.6 ± 0.3 pt ? undecided",
        "0.52x ✗ missed",
        "failed: the runtime ended with signal 11",
        "rejected: accuracy fell to chance",
        "onnxruntime 1.32.0 · CPUExecutionProvider · 1 thread · session.x64quantprecision=1",
        '[[step]] use = "int8"',
        "AMD EPYC <7B13>",
        "8.00 GB",
        "avx2 sse4_2",
        "temperature c 48.5",
        "the governor is 'ondemand'",
        documents.SHA,
        "7f3a91c2",
        "measure 25.0 s",
    ):
        assert part in text


def test_what_is_known_of_the_device_is_told_in_words():
    clusters = [{"name": "big", "cpus": [2, 3], "max_khz": 1_500_000}, {"name": "little", "cpus": [0, 1]}]
    device = {**documents.PROBE.to_json(), "clusters": clusters, "sensors": {"thermal": ["cpu"], "power": []}}
    source = html(documents.fit(device=device), "")
    assert "name big, cpus 2 3, max khz 1500000; name little, cpus 0 1" in source
    assert "thermal cpu<" in source


def test_what_users_and_devices_say_is_escaped():
    evil = "<script>alert(1)</script>"
    candidate = documents.INT8.with_(recipe=evil, warnings=(evil,), why=evil)
    device = {**documents.PROBE.to_json(), "cpu": evil, evil: evil}
    source = html(documents.fit(candidates=[candidate], reason=evil, device=device, profile=evil), evil)
    assert evil not in source
    assert source.count("&lt;script&gt;") >= 7
    Page(source)


@pytest.mark.parametrize(
    "document",
    [
        documents.running(),
        documents.fit(baseline=None, met=None, chosen=None, reason="", budget=[], candidates=[]),
        documents.fit(met=False, reason="missed", chosen=None, candidates=[documents.FAILED]),
    ],
    ids=["running", "planned", "all failed"],
)
def test_unfinished_and_failed_runs_have_a_report(document):
    assert Page(html(document)).text


def test_points_lie_in_the_frame_and_labels_do_not_cover_each_other():
    crowd = [documents.candidate(f"c{i}", f"r{i}", 50_000 + i, 0.05, reach=0.001, drop=i / 1000) for i in range(6)]
    drawn = chart(documents.fit(candidates=crowd, chosen="c0"))
    for p in drawn.points:
        assert LEFT <= p.x <= WIDTH - RIGHT
        assert TOP <= p.high <= p.y <= p.low <= HEIGHT - BOTTOM
    heights = sorted(p.label_y for p in drawn.points if p.number)
    assert all(b - a >= LINE - 0.01 for a, b in itertools.pairwise(heights))
    assert [p.kind for p in drawn.points][:2] == ["baseline", "chosen"]


def test_limits_are_drawn_where_they_are_in_sight():
    p50 = BudgetLine("latency<=50us", "latency.p50", 0.05, 0.038, 0.039, 0.061, "met")
    drawn = chart(documents.fit(budget=[documents.SIZE, p50]))
    fast, slow = drawn.points[2], drawn.points[0]
    assert fast.y > drawn.y_limit > slow.y
    assert drawn.points[1].x < drawn.x_limit < slow.x
    far = BudgetLine("size<=1GB", "size", 1e9, 43_400.0, 43_400.0, 140_000.0, "met")
    assert chart(documents.fit(budget=[far])).x_limit is None


def test_nothing_measured_nothing_drawn():
    assert chart(documents.fit(baseline=None, candidates=[documents.FAILED], chosen=None)) is None
