"""The verb `install`: a virtual environment under the root, from wheels that the host sent or by pip from its index.

Environments are ROOT/venvs/<n>, and the link ROOT/venv names the live one: they cannot be moved once made, a link can
be swapped at once, and a half-made one is never live.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import stat
import sys
import sysconfig
import zipfile
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional

from edgelathe_agent.cas import free_bytes
from edgelathe_agent.protocol import AgentError

if TYPE_CHECKING:
    from edgelathe_agent.serve import Agent

_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl\Z")
#: A requirement by name and version, not an option, a path or an address.
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?([ ]*[<>=!~,]+[ ]*[A-Za-z0-9.*+!]+)*\Z")
_OFFLINE = "or let the host send wheels: `edgelathe device install --wheels DIR`"
#: pip older than this cannot install into another environment (pip changelog, 22.3: --python).
_PIP_ELSEWHERE = (22, 3)


class Venv(NamedTuple):
    """Where things are in a virtual environment of the running Python (the layout of `posix_prefix`)."""

    home: str
    python: str
    site: str
    scripts: str


def install(agent: Agent, requirements: List[Any], wheels: List[Any]) -> str:
    """Make a new environment and let it be the live one; its interpreter. Raises AgentError("install"), "space"."""
    _check(requirements, wheels)
    paths = {w["name"]: agent.store.find(w["sha256"]) for w in wheels}
    folder = os.path.join(agent.root, "venvs")
    os.makedirs(folder, exist_ok=True)
    number = 1 + max([int(n) for n in os.listdir(folder) if n.isdigit()], default=0)
    venv = layout(os.path.join(folder, str(number)))
    try:
        own_pip = any(name.startswith("pip-") for name in paths)
        with_pip = bool(requirements) and not own_pip and importlib.util.find_spec("ensurepip") is not None
        _make(agent, venv, with_pip)
        for name, path in sorted(paths.items()):
            agent.event("unpacking " + name)
            unpack(path, name, venv)
        if requirements:
            _pip(agent, venv, [str(r) for r in requirements])
    except BaseException:
        shutil.rmtree(venv.home, ignore_errors=True)
        raise
    _swap(agent.root, venv.home)
    for other in os.listdir(folder):
        if other != str(number):
            shutil.rmtree(os.path.join(folder, other), ignore_errors=True)
    return os.path.join(agent.root, "venv", "bin", os.path.basename(venv.python))


def layout(home: str) -> Venv:
    """The folders of an environment at `home` made from the running Python."""
    variables = {"base": home, "platbase": home, "installed_base": home, "installed_platbase": home}
    scripts = os.path.join(home, "bin")
    site = sysconfig.get_path("purelib", "posix_prefix", variables)
    return Venv(home, os.path.join(scripts, "python"), site, scripts)


def unpack(path: str, name: str, venv: Venv) -> None:
    """Put the files of a wheel where they belong (PEP 427: the root and *.data/purelib, platlib, scripts, data).

    Raises AgentError("install") for a file that is no wheel or that names a place outside, "space" before writing.
    """
    try:
        with zipfile.ZipFile(path) as z:
            members = [m for m in z.infolist() if not m.is_dir()]
            targets = [(m, target(m.filename, venv)) for m in members]
            wanted, free = sum(m.file_size for m in members), free_bytes(venv.home)
            if free is not None and wanted > free:
                what = f"{name} unpacks to {wanted} bytes, {free} are free"
                raise AgentError("space", what, "free some space on the device, or choose another --root")
            for member, place in targets:
                if place is not None:
                    _extract(z, member, place, venv)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as e:
        raise AgentError("install", f"{name} is no wheel: {e}", "download it again") from None


def target(name: str, venv: Venv) -> Optional[str]:
    """Where a member of a wheel goes; None for headers. Raises AgentError("install") for a name leading elsewhere."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or any(p in ("", ".", "..") for p in parts):
        raise AgentError("install", f"a wheel with the file name {name!r}", "use another wheel")
    if not parts[0].endswith(".data"):
        return os.path.join(venv.site, *parts)
    places: Dict[str, str] = {"purelib": venv.site, "platlib": venv.site, "scripts": venv.scripts, "data": venv.home}
    base = places.get(parts[1])
    return os.path.join(base, *parts[2:]) if base and len(parts) > 2 else None


def _extract(z: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, venv: Venv) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    script = os.path.dirname(place) == venv.scripts
    with z.open(member) as source, open(place, "wb") as out:
        first = source.readline() if script else b""
        out.write(b"#!" + venv.python.encode() + b"\n" if first.startswith(b"#!python") else first)
        shutil.copyfileobj(source, out, 1 << 20)
    if script or (member.external_attr >> 16) & stat.S_IXUSR:
        os.chmod(place, 0o755)


def _check(requirements: List[Any], wheels: List[Any]) -> None:
    for r in requirements:
        if not isinstance(r, str) or not _REQUIREMENT.match(r):
            raise AgentError("request", f"{r!r:.80} is no requirement", "name==version")
    for w in wheels:
        if not isinstance(w, dict) or not isinstance(w.get("name"), str) or not _WHEEL.match(w["name"]):
            raise AgentError("request", f"{w!r:.80} is no wheel", '{"name", "sha256"}')


def _make(agent: Agent, venv: Venv, with_pip: bool) -> None:
    agent.event("making a virtual environment")
    argv = [sys.executable, "-m", "venv", *([] if with_pip else ["--without-pip"]), venv.home]
    code, words = _run(agent, argv, lambda _: None)
    if code:
        mend = "`apt install python3-venv` on the device, " + _OFFLINE
        raise _failed(words, code, "no virtual environment: ", mend)


def _pip(agent: Agent, venv: Venv, requirements: List[str]) -> None:
    """Install by the environment's own pip (made with it, or one of the wheels), else by the system's."""
    common = ["install", "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--prefer-binary"]
    if os.path.isdir(os.path.join(venv.site, "pip")):
        argv = [venv.python, "-m", "pip", *common, *requirements]
    elif _system_pip(agent) >= _PIP_ELSEWHERE:
        argv = [sys.executable, "-m", "pip", "--python", venv.python, *common, *requirements]
    else:
        mend = "`apt install python3-venv` on the device, " + _OFFLINE
        raise AgentError("install", "this Python has neither ensurepip nor a recent pip", mend)
    code, words = _run(agent, argv, agent.event)
    if code:
        mend = "check the device's index and network, " + _OFFLINE
        raise _failed(words, code, "pip: ", mend)


def _system_pip(agent: Agent) -> Any:
    """Version of the pip that the running Python has, as numbers; () when it has none."""
    code, words = _run(agent, [sys.executable, "-m", "pip", "--version"], lambda _: None)
    found = re.match(r"pip (\d+)\.(\d+)", words[0]) if words and not code else None
    return tuple(int(g) for g in found.groups()) if found else ()


def _run(agent: Agent, argv: List[str], tell: Callable[[str], None]) -> Any:
    """A program's exit code and what it wrote; temporary files stay under the root, where there is room for wheels."""
    temporary = os.path.join(agent.root, "tmp")
    os.makedirs(temporary, exist_ok=True)
    job = agent.jobs.start(argv, dict(os.environ, TMPDIR=temporary, PYTHONUNBUFFERED="1"), merge=True)
    words: List[str] = []
    try:
        for line in agent.jobs.lines(job):
            words = [*words[-199:], line]
            tell(line)
    finally:
        agent.jobs.end(job)
        shutil.rmtree(temporary, ignore_errors=True)
    return job.process.returncode, words


def _failed(words: List[str], code: int, what: str, mend: str) -> AgentError:
    """The line that says what went wrong: pip's last `ERROR:`, else the last one."""
    if any("No space left" in w for w in words):
        return AgentError("space", what + "no space left on the device", "free some space, or choose another --root")
    lines = [w for w in words if w.startswith("ERROR:")] or [w for w in words if w.strip()]
    return AgentError("install", what + (lines[-1][:300] if lines else f"it ended with code {code}"), mend)


def _swap(root: str, home: str) -> None:
    """Point ROOT/venv at the new environment, at once."""
    new = os.path.join(root, "venv.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(os.path.relpath(home, root), new)
    os.replace(new, os.path.join(root, "venv"))
