"""Runs and devices, on SQLite and, where EDGELATHE_TEST_POSTGRES names an empty database, on PostgreSQL."""

import hashlib
import math
import os
import subprocess
import sys
import uuid

import pytest

from edgelathe.core.device import Target
from edgelathe.core.errors import UserError
from edgelathe.store import open_store
from support import documents

JOB = {"model": "/m/digits.onnx", "model_sha256": "ab" * 32, "device": "cam", "budget": ["size<=0.5x"], "max_time": 1.5}
ARTIFACT = b"compressed model"
SHA = hashlib.sha256(ARTIFACT).hexdigest()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deep/er/store.db"
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    sa = pytest.importorskip("sqlalchemy")
    server = os.environ.get("EDGELATHE_TEST_POSTGRES") or pytest.skip("EDGELATHE_TEST_POSTGRES is not set")
    name = f"edgelathe_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield engine.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


def save(store, run, candidate=documents.INT8, **more):
    store.save_candidate(run, candidate, **{"claims": {}, "recipe_toml": "", "artifact": ARTIFACT, **more})


def test_a_run_comes_back_as_it_was_saved(url):
    claims = {"accuracy.drop": {"value": 0.01, "lower": None, "upper": math.inf, "n": 500}}
    with open_store(url) as store:
        run = store.create_run(JOB)
        store.set_run_state(run, "running")
        save(store, run, documents.BASELINE, artifact=None)
        save(store, run, claims=claims, recipe_toml='[[step]]\nuse = "int8"\n')
        store.set_run_state(run, "done", result={"reason": "met by int8 – 0.31×"}, met=True)
    with open_store(url) as store:
        row = store.run(run)
        assert (row.state, row.met, row.job, row.model_sha256) == ("done", True, JOB, "ab" * 32)
        assert (row.model, row.device, row.result) == ("/m/digits.onnx", "cam", {"reason": "met by int8 – 0.31×"})
        assert row.started <= row.finished
        first, second = store.candidates(run)
        assert (first.candidate, second.candidate) == (documents.BASELINE, documents.INT8)
        assert (second.claims, second.recipe_toml) == (claims, '[[step]]\nuse = "int8"\n')
        assert store.artifact(SHA) == ARTIFACT


def test_saving_again_updates_in_place_and_keeps_the_artifact(store):
    run = store.create_run(JOB)
    save(store, run, documents.INT8.with_(status="running"))
    save(store, run, documents.FP16)
    save(store, run, documents.INT8, artifact=None)
    assert [c.candidate for c in store.candidates(run)] == [documents.INT8, documents.FP16]
    store.delete_run(store.create_run(JOB))
    assert store.artifact(SHA) == ARTIFACT


def test_candidates_of_one_run_are_not_those_of_another(store):
    a, b = store.create_run(JOB), store.create_run(JOB)
    save(store, a)
    save(store, b, documents.INT8.with_(recipe="other"))
    assert [c.candidate.recipe for c in store.candidates(a)] == ["int8"]


def test_runs_are_listed_newest_first(store):
    ids = [store.create_run(JOB) for _ in range(4)]
    assert len(set(ids)) == 4
    assert [r.run for r in store.runs()] == ids[::-1]
    assert [r.run for r in store.runs(2)] == ids[:1:-1]


def test_a_run_is_found_by_a_unique_beginning(store):
    run = store.create_run(JOB)
    assert store.run(run[:3]).run == run
    assert store.run(run[:3].upper()).run == run


def test_an_unknown_or_ambiguous_run_names_the_choices(store):
    with pytest.raises(UserError, match=r"run no-such-run: no such run; there are none yet in"):
        store.run("no-such-run")
    ids = [store.create_run(JOB) for _ in range(17)]  # two of them begin alike
    first = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(UserError, match=f"run {first}: .* runs begin so; choose from {first}"):
        store.run(first)
    with pytest.raises(UserError, match=ids[-1]):
        store.run("no-such-run")
    for wild in ("%", "_", ""):
        with pytest.raises(UserError, match="no such run"):
            store.run(wild)


@pytest.mark.parametrize(
    "act",
    [
        lambda s: save(s, "nothing"),
        lambda s: s.save_file("nothing", "x", b""),
        lambda s: s.set_run_state("nothing", "done"),
        lambda s: s.delete_run("nothing"),
        lambda s: s.lock("nothing").__enter__(),
    ],
)
def test_writing_to_a_run_that_is_not_there_is_refused(store, act):
    with pytest.raises(UserError, match="no such run"):
        act(store)


def test_deleting_a_run_drops_only_what_no_other_run_uses(store):
    a, b = store.create_run(JOB), store.create_run(JOB)
    save(store, a)
    save(store, b)
    store.save_file(a, "outputs", b"outputs of a")
    store.delete_run(a)
    assert store.artifact(SHA) == ARTIFACT
    store.delete_run(b[:6])
    assert store.runs() == []
    with pytest.raises(UserError, match="fit again"):
        store.artifact(SHA)
    if store.path:
        assert list(store.path.with_name("store.db-artifacts").iterdir()) == []


def test_files_of_a_run(store):
    run = store.create_run(JOB)
    assert store.file(run, "outputs") is None
    store.save_file(run, "outputs", b"first")
    store.save_file(run, "outputs", b"second")
    assert store.file(run, "outputs") == b"second"


def test_a_locked_run_is_refused_to_others_and_free_afterwards(store):
    run = store.create_run(JOB)
    with store.lock(run):
        store.set_run_state(run, "running")
        assert store.run(run).owner == f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(UserError, match=f"run {run}: process {os.getpid()} on .* works on it"), store.lock(run):
            pass
        with pytest.raises(UserError, match="works on it"):
            store.delete_run(run)
    with store.lock(run):
        pass
    assert store.run(run).owner is None


def test_the_run_of_a_killed_process_is_interrupted_and_can_be_taken_over(store, url):
    run = store.create_run(JOB)
    code = (
        "import os, sys; from edgelathe.store import open_store; s = open_store(sys.argv[1])\n"
        "kept = s.lock(sys.argv[2]); kept.__enter__(); s.set_run_state(sys.argv[2], 'running'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, url, run], check=False).returncode == 9
    assert store.run(run).state == store.runs()[0].state == "interrupted"
    with store.lock(run):
        assert store.run(run).state == "running"


def test_devices(store):
    cam = Target("cam", "ssh://pi@cam:2222", "/opt/el", "/usr/bin/python3", None, "SHA256:abc")
    store.add_device(cam)
    store.add_device(Target("a.2", "ssh://x"))
    assert [d.name for d in store.devices()] == ["a.2", "cam"]
    assert store.device("cam") == cam
    store.set_profile("cam", "raspberry-pi-4")
    assert store.device("cam").profile == "raspberry-pi-4"
    store.remove_device("cam")
    assert [d.name for d in store.devices()] == ["a.2"]


def test_devices_that_cannot_be(store):
    with pytest.raises(UserError, match="device 'cam': is not registered; register it with"):
        store.device("cam")
    store.add_device(Target("cam", "ssh://pi@cam"))
    with pytest.raises(UserError, match=r"device 'cam': is registered already; .*device remove cam"):
        store.add_device(Target("cam", "ssh://other"))
    for name in ("local", "a b", "ssh://x", "pi@cam", "", "-x"):
        with pytest.raises(UserError, match="choose letters"):
            store.add_device(Target(name, "ssh://x"))
    for act in (store.device, store.remove_device, lambda n: store.set_profile(n, "p")):
        with pytest.raises(UserError, match="did you mean 'cam'"):
            act("cma")
