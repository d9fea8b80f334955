import base64
import stat

import pytest

from edgelathe.core.errors import UserError
from edgelathe.device import hostkeys
from edgelathe.device.errors import ChangedHostKey, UnknownHostKey
from edgelathe.device.hostkeys import HostKey
from edgelathe.device.sshconfig import Endpoint
from support.sshd import keygen


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys and their fingerprints as ssh-keygen prints them."""
    folder, out = tmp_path_factory.mktemp("keys"), []
    for name in ("one", "two"):
        keygen("-t", "ed25519", "-N", "", "-f", str(folder / name))
        kind, blob = (folder / f"{name}.pub").read_text().split()[:2]
        key = HostKey(kind, base64.b64decode(blob))
        assert key.fingerprint == keygen("-l", "-f", str(folder / f"{name}.pub")).split()[1]
        out.append(key)
    return out


def line(key, hosts="cam", marker=""):
    return f"{marker} {hosts} {key.type} {base64.b64encode(key.blob).decode()} comment\n".lstrip()


def endpoint(file, port=22, **kw):
    return Endpoint("cam", "cam", port, "pi", known_hosts=(file,), **kw)


@pytest.mark.parametrize(
    ("hosts", "port", "known"),
    [
        ("cam", 22, True), ("cam", 2222, False), ("[cam]:2222", 2222, True), ("[cam]:2222", 22, False),
        ("CAM", 22, True),
        ("other,cam", 22, True), ("*", 22, True), ("c?m", 22, True), ("c*,!cam", 22, False), ("!cam,c*", 22, False),
        ("[c]am", 22, False), ("[*]:2222", 2222, True),
    ],
)  # fmt: skip
def test_patterns_are_those_of_sshd(tmp_path, keys, hosts, port, known):
    file = tmp_path / "known_hosts"
    file.write_text("# comment\n\nbroken line\ncam ssh-ed25519 not*base64\n" + line(keys[0], hosts))
    assert bool(hostkeys.lines_for(endpoint(file, port).key_name, [file])) is known


def test_hashed_names_are_understood(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line(keys[0], "[cam]:2222") + line(keys[1], "other"))
    keygen("-H", "-f", str(file))
    assert "cam" not in file.read_text()
    hostkeys.check(endpoint(file, 2222), keys[0], "cam")
    with pytest.raises(UnknownHostKey):
        hostkeys.check(endpoint(file, 22), keys[0], "cam")


def test_an_alias_stands_for_the_host(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line(keys[0], "fleet-7"))
    hostkeys.check(endpoint(file, 2222, host_key_alias="fleet-7"), keys[0], "cam")


def test_an_unknown_key_says_which_and_how_to_accept_it(tmp_path, keys):
    with pytest.raises(UnknownHostKey) as caught:
        hostkeys.check(endpoint(tmp_path / "none"), keys[0], "board")
    text = str(caught.value)
    assert text.startswith("board: the host key of cam:22 is not known: ssh-ed25519 SHA256:")
    assert "--fingerprint SHA256:..." in text  # not the key just seen: it has to be compared


def test_a_changed_key_says_where_the_old_one_stands(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text("# mine\n" + line(keys[0]))
    with pytest.raises(ChangedHostKey) as caught:
        hostkeys.check(endpoint(file), keys[1], "board", keys[1].fingerprint)  # whatever the fingerprint says
    text = str(caught.value)
    assert all(word in text for word in (keys[0].fingerprint, keys[1].fingerprint, f"{file}:2", "ssh-keygen -R 'cam'"))


def test_a_host_may_have_several_keys(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line(keys[0]) + line(keys[1]))
    for key in keys:
        hostkeys.check(endpoint(file), key, "board")


def test_revoked_keys_and_authorities_vouch_for_nobody(tmp_path, keys):
    file = tmp_path / "known_hosts"
    file.write_text(line(keys[0]) + line(keys[0], "*", "@revoked"))
    with pytest.raises(ChangedHostKey, match=r"revoked at .*known_hosts:2"):
        hostkeys.check(endpoint(file), keys[0], "board")
    file.write_text(line(keys[0], "*", "@cert-authority"))
    with pytest.raises(UnknownHostKey):
        hostkeys.check(endpoint(file), keys[0], "board")


def test_a_registered_fingerprint_vouches_for_its_key_only(tmp_path, keys):
    file = tmp_path / "none"
    hostkeys.check(endpoint(file), keys[0], "board", keys[0].fingerprint + "=")
    with pytest.raises(ChangedHostKey, match="key"):
        hostkeys.check(endpoint(file), keys[1], "board", keys[0].fingerprint)


@pytest.mark.parametrize("text", ["", "SHA256:", "SHA256:abc", "MD5:" + "0" * 43, "A" * 43, "SHA256:" + "!" * 43])
def test_malformed_fingerprints_are_bad_usage(text):
    with pytest.raises(UserError, match="not a SHA256 fingerprint"):
        hostkeys.normalized(text)


def test_accepted_keys_go_to_the_named_file_on_a_line_of_their_own(tmp_path, keys):
    file = tmp_path / "ssh" / "known_hosts"
    file.parent.mkdir()
    file.write_text(line(keys[1], "other").rstrip())
    assert hostkeys.accept(endpoint(file, 2222), keys[0]) == file
    assert file.read_text().splitlines()[1].startswith("[cam]:2222 ssh-ed25519 ")
    hostkeys.check(endpoint(file, 2222), keys[0], "board")


def test_without_a_named_file_accepted_keys_are_edgelathes_own_and_private(own_home, keys):
    plain = Endpoint("cam", "cam", 22, "pi")
    file = hostkeys.accept(plain, keys[0])
    assert file == own_home / "config" / "edgelathe" / "known_hosts"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    hostkeys.check(plain, keys[0], "board")
