import hashlib
import subprocess
import sys

from edgelathe.device.payload import archive, payload


def test_equal_sources_give_equal_bytes():
    one, other = {"b.py": b"1", "a.py": b"2" * 1000}, {"a.py": b"2" * 1000, "b.py": b"1"}
    assert archive(one) == archive(other) != archive({**one, "b.py": b"3"})


def test_the_agent_is_named_by_its_hash_and_small():
    agent = payload()
    assert agent.sha256 == hashlib.sha256(agent.data).hexdigest()
    assert 10_000 < len(agent.data) < 150_000


def test_the_archive_runs_by_itself_and_ends_with_its_input(tmp_path):
    path = tmp_path / "agent.pyz"
    path.write_bytes(payload().data)
    done = subprocess.run(
        [sys.executable, str(path), "--root", str(tmp_path / "root")],
        input=b"",
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"ELA1")
