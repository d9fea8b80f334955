"""`runs` and `report`: what the store has kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.shell import Shell, command

app = typer.Typer(name="runs", help="List, show, compare, export and delete earlier runs.", no_args_is_help=True)
report_app = typer.Typer()

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its beginning.", show_default=False)]


@command(app, "list")
def list_(shell: Shell, limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many.")] = 50) -> None:
    """List runs, newest first."""

    with shell.store() as store:
        rows = [row.to_json() for row in store.runs(limit)]
    document = {"schema": "edgelathe.runs/1", "runs": rows}
    shell.answer(document)


@command(app)
def show(shell: Shell, run: Run) -> None:
    """Show a run: the document of its fit, with what is there so far while it goes on."""
    from edgelathe.fit.records import judged, running_document
    from edgelathe.report import terminal

    with shell.store() as store:
        document = running_document(store, store.run(run).run)
        verdicts = judged(store, document["run"])
    shell.answer(document, terminal.fit(document, verdicts))


@command(app)
def compare(shell: Shell, runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", show_default=False)]) -> None:
    """Put the chosen models of several runs side by side."""
    from edgelathe.core.errors import UserError
    from edgelathe.fit.records import running_document

    if len(runs) < 2:
        raise UserError("runs compare", "one run only", "name two or more")
    with shell.store() as store:
        documents = [running_document(store, store.run(run).run) for run in runs]
    document = {"schema": "edgelathe.comparison/1", "runs": documents}
    shell.answer(document)


@command(app)
def export(
    shell: Shell,
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
) -> None:
    """Write the result files of a finished run again: model, recipe, result, report, JUnit."""
    from edgelathe.fit.records import export as write

    with shell.store() as store:
        paths = write(store, store.run(run).run, out, force)
    document = {"schema": "edgelathe.export/1", "run": run, "files": [str(path) for path in paths]}
    shell.answer(document, "wrote " + " · ".join(map(str, paths)))


@command(app)
def delete(shell: Shell, runs: Annotated[list[str], typer.Argument(metavar="RUN...", show_default=False)]) -> None:
    """Forget runs and the artifacts that no other run uses."""
    with shell.store() as store:
        ids = [store.run(run).run for run in runs]
        for run in ids:
            store.delete_run(run)
    document = {"schema": "edgelathe.deleted/1", "deleted": ids}
    shell.answer(document, "deleted " + ", ".join(ids))


@command(report_app)
def report(
    shell: Shell,
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="`-`: standard output.")] = None,
) -> None:
    """Write the report of a run as one self-contained HTML file."""
    from edgelathe.core import files
    from edgelathe.core.errors import UserError
    from edgelathe.fit.records import judged, running_document, stored_entries
    from edgelathe.report.html import html

    if str(out) == "-" and shell.as_json:
        raise UserError("report -o -", "the report goes to stdout, no JSON can", "leave --json out or name a file")
    with shell.store() as store:
        document = running_document(store, store.run(run).run)
        entry = stored_entries(store, document["run"]).get(document["chosen"] or "")
        text = html(document, entry.recipe_toml if entry else "", judged(store, document["run"]))
    path = out or Path(f"report-{document['run']}.html")
    if str(path) == "-":
        typer.echo(text)
        return
    files.write(path, text)
    written = {"schema": "edgelathe.report/1", "run": document["run"], "file": str(path)}
    shell.answer(written, f"wrote {path}")
