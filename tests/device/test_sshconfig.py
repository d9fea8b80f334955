import getpass

import pytest

from edgelathe.core.errors import UserError
from edgelathe.device.sshconfig import DEFAULT_KEYS, SshConfig, parse


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("cam", "cam", None, None), ("pi@cam", "cam", "pi", None), ("ssh://cam", "cam", None, None),
        ("ssh://pi@cam:2222", "cam", "pi", 2222), ("ssh://pi@[fe80::1]:22", "fe80::1", "pi", 22),
        ("pi@10.0.0.7:22", "10.0.0.7", "pi", 22),
        ("ssh://cam/", "cam", None, None), ("Cam", "Cam", None, None),
    ],
)  # fmt: skip
def test_addresses(text, host, user, port):
    assert parse(text) == (parsed := parse(text))
    assert (parsed.host, parsed.user, parsed.port) == (host, user, port)


@pytest.mark.parametrize(
    "text",
    ["", "ssh://", "ssh://pi@", "http://cam", "ssh://cam:port", "ssh://cam:99999", "ssh://pi:secret@cam", "ssh://cam/path",
     "ssh://-oProxyCommand=x", "ssh://a b"],
)  # fmt: skip
def test_what_is_no_address_is_bad_usage(text):
    with pytest.raises(UserError):
        parse(text)


def config(tmp_path, text):
    file = tmp_path / "config"
    file.write_text(text)
    return SshConfig(file)


def test_the_config_decides_what_the_address_leaves_open(tmp_path):
    c = config(
        tmp_path,
        f"Host cam-*\n  HostName %h.lab\n  Port 2222\n  User pi\n  IdentityFile {tmp_path}/key\n  IdentitiesOnly yes\n"
        "  HostKeyAlias fleet\n  ConnectTimeout 3\n  UserKnownHostsFile ~/a /b\n",
    )
    e = c.endpoint("ssh://cam-1")
    assert (e.host, e.port, e.user, e.keys, e.keys_only) == ("cam-1.lab", 2222, "pi", (tmp_path / "key",), True)
    assert (e.key_name, e.connect_seconds, len(e.known_hosts), str(e.known_hosts[1])) == ("fleet", 3.0, 2, "/b")
    assert (c.endpoint("root@cam-1:22").user, c.endpoint("root@cam-1:22").port) == ("root", 22)
    assert c.knows("cam-9")
    assert not c.knows("cat")
    plain = c.endpoint("cat")
    assert (plain.host, plain.port, plain.user) == ("cat", 22, getpass.getuser())
    assert len(plain.keys) == len(DEFAULT_KEYS)


def test_included_files_count(tmp_path):
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d" / "cams").write_text("Host cam\n  Port 7\n")
    assert config(tmp_path, f"Include {tmp_path}/more.d/*\nHost *\n  Port 8\n").endpoint("cam").port == 7


def test_jumps_are_resolved_one_after_the_other(tmp_path):
    c = config(
        tmp_path,
        "Host cam\n  ProxyJump gate,pi@inner:23\nHost gate\n  ProxyJump outer\n  Port 2\nHost outer\n  User ops\n"
        "Host direct\n  ProxyJump none\n",
    )
    hops = [(h.host, h.port, h.jumps) for h in c.endpoint("cam").jumps]
    assert hops == [("outer", 22, ()), ("gate", 2, ()), ("inner", 23, ())]
    assert c.endpoint("cam").jumps[0].user == "ops"
    assert c.endpoint("direct").jumps == ()


def test_jumps_in_a_circle_are_told(tmp_path):
    with pytest.raises(UserError, match="circle"):
        config(tmp_path, "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n").endpoint("a")


@pytest.mark.parametrize(
    ("text", "word"),
    [("Host cam\n  Port many\n", "port of cam is 'many'"), ("Host cam\n  Match all\nnonsense\n", "not an ssh config")],
)
def test_a_broken_config_names_the_file(tmp_path, text, word):
    with pytest.raises(UserError, match=word) as caught:
        config(tmp_path, text).endpoint("cam")
    assert str(tmp_path / "config") in str(caught.value)


def test_the_variable_replaces_the_users_config_and_must_exist(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("Host cam\n  Port 9\n")
    monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(tmp_path / "mine"))
    assert SshConfig().endpoint("cam").port == 9
    monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no such ssh config"):
        SshConfig()
