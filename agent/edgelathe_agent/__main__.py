"""`python AGENT.pyz --root DIR --agent SHA256`: serve stdin and stdout. With `--child`: run one model for the agent."""

from __future__ import annotations

import os
import sys
from typing import Dict, List

USAGE = "usage: edgelathe_agent [--root DIR] [--agent SHA256] [--child]\n"
DEFAULT_ROOT = os.path.join("~", ".local", "share", "edgelathe-agent")


def main(args: List[str]) -> int:
    """Read the few options there are (argparse would double the time to start) and run."""
    values: Dict[str, str] = {"--root": DEFAULT_ROOT, "--agent": ""}
    child, rest = False, list(args)
    while rest:
        word = rest.pop(0)
        if word == "--child":
            child = True
        elif word in values and rest:
            values[word] = rest.pop(0)
        else:
            sys.stderr.write(USAGE)
            return 0 if word in ("-h", "--help") else 2
    root = os.path.abspath(os.path.expanduser(values["--root"]))
    from edgelathe_agent import serve

    if not child:
        return serve.main(root, values["--agent"])
    from edgelathe_agent import session

    code = session.main(root, serve.claim_stdout())
    os._exit(code)  # threads of a runtime may not end by themselves, and its destructors may crash


def run() -> None:
    """The command `edgelathe-agent`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
