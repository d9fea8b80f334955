"""Where the store is, who may use it at once, and what is said when it cannot be used."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgelathe.core.errors import HostError, UserError
from edgelathe.store import database, open_store, schema
from support import documents

JOB = {"model": "m.onnx"}


def test_importing_the_store_does_not_load_the_database_library():
    code = "import sys, edgelathe.store; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:////x/y.db", "/x/y.db"),
        ("sqlite:///y.db", "y.db"),
        ("/x/y.db", "/x/y.db"),
        ("~/y.db", "/home/u/y.db"),
        (None, "/data/edgelathe/store.db"),
    ],
)
def test_where_the_store_is(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.delenv("EDGELATHE_STORE", raising=False)
    assert database.resolve(text).database == expected


def test_the_environment_names_the_store_and_the_option_goes_first(monkeypatch):
    monkeypatch.setenv("EDGELATHE_STORE", "/env.db")
    assert database.resolve(None).database == "/env.db"
    assert database.resolve("/option.db").database == "/option.db"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://u:secret@h/d", "no store of the kind 'mysql'"),
        ("sqlite://", "no path in it"),
        ("postgresql://u@h:port/d", "the address cannot be understood"),
    ],
)
def test_addresses_that_cannot_be(text, said):
    with pytest.raises(UserError, match=said) as error:
        database.resolve(text)
    assert "secret" not in str(error.value)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"edgelathe\[postgres\]") as error:
        open_store("postgresql://u:secret@h/d")
    assert "secret" not in str(error.value)


def refused(path, said, kind=UserError):
    with pytest.raises(kind, match=said) as error:
        open_store(str(path))
    assert str(path) in str(error.value)


def test_files_that_are_no_store_are_refused_and_left_alone(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to be taken for one\n" * 100)
    refused(text, "is no store")
    assert text.read_text().startswith("not a database")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE songs (title)")
    other.close()
    refused(tmp_path / "other.db", "tables of another program \\('songs'\\)")
    refused(tmp_path, "cannot be opened")
    refused(text / "sub" / "x.db", "its folder cannot be made")


def test_a_damaged_store_is_one_line(tmp_path):
    path = tmp_path / "store.db"
    open_store(str(path)).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(UserError, match="damaged"), open_store(str(path)) as store:
        store.runs()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "store.db"
    open_store(str(path)).close()
    path.chmod(0o444)
    with pytest.raises(UserError, match="cannot be written"), open_store(str(path)) as store:
        store.create_run(JOB)


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(tmp_path):
    with open_store(str(tmp_path / "s.db")) as store:
        run = store.create_run(JOB)
        with store.read() as connection:  # the engine keeps this one connection
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(HostError, match="the disk is full"):
            store.save_candidate(run, documents.INT8, claims={}, recipe_toml="x" * 100_000, artifact=None)
        assert store.candidates(run) == []
        assert [r.run for r in store.runs()] == [run]


def test_artifacts_that_cannot_be_written_are_one_line_and_leave_no_candidate(tmp_path):
    with open_store(str(tmp_path / "s.db")) as store:
        run = store.create_run(JOB)
        (tmp_path / "s.db-artifacts").write_text("in the way")
        with pytest.raises(HostError, match="s\\.db-artifacts cannot be written"):
            store.save_candidate(run, documents.INT8, claims={}, recipe_toml="", artifact=b"x")
        assert store.candidates(run) == []


def test_a_damaged_artifact_is_noticed(tmp_path):
    with open_store(str(tmp_path / "s.db")) as store:
        run = store.create_run(JOB)
        store.save_file(run, "outputs", b"right")
        file = next((tmp_path / "s.db-artifacts").iterdir())
        file.write_bytes(b"wrong")
        with pytest.raises(HostError, match="is damaged"):
            store.file(run, "outputs")


def test_two_stores_in_one_folder_do_not_sweep_each_other(tmp_path):
    with open_store(str(tmp_path / "a.db")) as a, open_store(str(tmp_path / "b.db")) as b:
        run, other = a.create_run(JOB), b.create_run(JOB)
        a.save_file(run, "x", b"of a")
        b.delete_run(other)
        assert a.file(run, "x") == b"of a"


def test_a_newer_store_is_refused(tmp_path, monkeypatch):
    path = str(tmp_path / "s.db")
    monkeypatch.setattr(schema, "MIGRATIONS", (lambda connection: None,) * 4)
    open_store(path).close()
    monkeypatch.undo()
    refused(path, "newer edgelathe \\(schema 5, this one knows 1\\); upgrade edgelathe")


def test_an_older_store_is_brought_forward_wholly_or_not_at_all(tmp_path, monkeypatch):
    path = str(tmp_path / "s.db")
    with open_store(path) as store:
        run = store.create_run(JOB)

    def add_column(connection):
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN note TEXT DEFAULT 'old'")

    def fail(connection):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(schema, "MIGRATIONS", (add_column, fail))
    with pytest.raises(RuntimeError, match="in the middle"):
        open_store(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (add_column,))
    with open_store(path) as store:
        assert store.run(run).run == run
        with store.read() as connection:
            assert connection.exec_driver_sql("SELECT note FROM runs").scalar() == "old"
            assert schema.version(connection, path) == 2


WRITER = """
import sys
from edgelathe.store import open_store
from support import documents
with open_store(sys.argv[1]) as store:
    run = store.create_run({"model": "m"})
    for i in range(int(sys.argv[2])):
        store.save_candidate(run, documents.INT8.with_(id=f"c{i}"), claims={}, recipe_toml="", artifact=b"%d" % i)
"""


def start(path, count, code=WRITER):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, str(path), str(count)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_processes_may_open_a_fresh_store_and_write_to_it_at_once_while_another_reads(tmp_path):
    path = tmp_path / "s.db"
    writers = [start(path, 15) for _ in range(3)]
    while not path.exists() and writers[0].poll() is None:
        time.sleep(0.01)
    seen = 0
    with open_store(str(path)) as store:
        while any(w.poll() is None for w in writers):
            seen = max(seen, sum(len(store.candidates(r.run)) for r in store.runs()))
            time.sleep(0.02)
        assert [w.stderr.read() for w in writers] == [b""] * 3
        assert [len(store.candidates(r.run)) for r in store.runs()] == [15] * 3
    for w in writers:
        w.stdout.close()
        w.stderr.close()
        assert w.returncode == 0
    assert len(list(Path(f"{path}-artifacts").iterdir())) == 15


def test_what_was_saved_survives_a_kill(tmp_path):
    path = tmp_path / "s.db"
    code = WRITER + "    print(run, flush=True); import os; os.kill(os.getpid(), 9)\n"
    with start(path, 3, code) as writer:
        run = writer.stdout.read().decode().strip()
    assert writer.returncode == -9
    with open_store(str(path)) as store:
        assert [c.candidate.id for c in store.candidates(run)] == ["c0", "c1", "c2"]


def test_the_documentation_names_every_table_and_column():
    text = Path(__file__).parents[2].joinpath("docs", "results.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for table in schema.METADATA.tables.values():
        missing = [c.name for c in table.columns if c.name not in rows[table.name] and c.name != "seq"]
        assert not missing, f"{table.name}: {missing}"
