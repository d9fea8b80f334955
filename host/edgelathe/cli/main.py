"""The `edgelathe` command: all groups in one application, and errors as one line with an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from edgelathe import __version__
from edgelathe.cli import (
    bench,
    demo,
    device,
    evaluate,
    fit,
    fleet,
    models,
    profiles,
    runs,
    sensitivity,
    simulate,
    trace,
)
from edgelathe.core.errors import EdgelatheError

#: Options that a user knows from another command.
HINTS = {"--calib": "--data gives the samples here"}

app = typer.Typer(
    name="edgelathe",
    help="Fit a trained model to a budget on the device it will run on.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: quick, greppable, and it wraps anywhere
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, models, simulate, fit, bench, evaluate, sensitivity, trace):
    app.registered_commands += module.app.registered_commands
for group in (device, fleet, runs, profiles):
    app.add_typer(group.app)
app.registered_commands += runs.report_app.registered_commands


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Fit a trained model to a budget on the device it will run on."""
    if version:
        typer.echo(f"edgelathe {__version__}")
        raise typer.Exit


def run(arguments: list[str]) -> int:  # noqa: PLR0911  # one return per way to end
    """Run one command line; gives the exit code of DESIGN's contract (0, 1, 2, 3, 4, 130)."""
    verbose = bool({"-v", "--verbose"} & set(arguments))
    try:
        code = int(app(args=arguments, prog_name="edgelathe", standalone_mode=False) or 0)
        return _interrupted() if code == 130 else code  # typer's own answer to Ctrl-C
    except EdgelatheError as e:
        return _fail(str(e), e.code, verbose)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, as with `| head`
        return 1
    except Exception as e:
        if _signalled:  # an import or a C call that was cut short fails in its own ways
            return _interrupted()
        if hasattr(e, "format_message"):  # the command line's own: an unknown option, a missing argument
            words = str(e.format_message()).strip().replace("\n", " ")
            context: Any = getattr(e, "ctx", None)
            if type(e).__name__ == "NoArgsIsHelpError":
                sys.stderr.write(f"{e.format_message()}\n")
                return 2
            command = getattr(context, "command_path", "edgelathe")
            known = next((hint for option, hint in HINTS.items() if option in words.rstrip(".").split()), "")
            return _fail(f"{command}: {words.rstrip('.')}; {known or f'see `{command} --help`'}", 2, verbose)
        return _bug(e, verbose)


def _fail(line: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write(f"error: {line}\n")
    return code


def _bug(error: Exception, verbose: bool) -> int:
    """A failure that nobody foresaw: the traceback goes to a file that a report can quote."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="edgelathe-bug-", suffix=".txt", delete=False, encoding="utf-8") as f:
        f.write(f"edgelathe {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n")
        traceback.print_exc(file=f)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _fail(f"edgelathe: {what}; this is a bug, please report it with {f.name}", 4, verbose)


def _interrupted() -> int:
    return _fail("edgelathe: interrupted; run it again", 130, False)


_signalled: list[int] = []


class _Stopped(KeyboardInterrupt):
    """A signal. After a plain KeyboardInterrupt out of an `exec` (a dataclass being made) `python -m` ends by SIGINT,
    whatever the exit code."""


def _stop(signum: int, _frame: FrameType | None) -> NoReturn:
    _signalled.append(signum)
    raise _Stopped


def main() -> None:
    """Entry point of the `edgelathe` command."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT too: a script's `&` has it ignored
        signal.signal(signum, _stop)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
