"""`foveate jobs`: what a service works on."""

from pathlib import Path
from typing import Annotated

import typer

from foveate.client import Client
from foveate.errors import FoveateError
from foveate.options import LOCAL_SERVER, KeyOption, ServerOption
from foveate.output import JsonFlag, print_result, print_table, print_warnings
from foveate.schema import JobState, StatusInfo

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List, show, cancel, preview and fetch the jobs of a service.", no_args_is_help=True)
    group.command("list")(list_jobs)
    group.command()(show)
    group.command()(cancel)
    group.command()(preview)
    group.command()(fetch)
    app.add_typer(group, name="jobs")


def list_jobs(
    server: ServerOption = LOCAL_SERVER,
    api_key: KeyOption = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATES", help="Only these states, with commas between.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List all jobs, newest first."""
    with Client(server, api_key) as client:
        jobs = client.jobs(**({} if status is None else {"status": status}))
    header = ("job", "status", "created", "model", "image", "message")
    print_table({"jobs": jobs}, header, [_row(job) for job in jobs], as_json, elastic=("model", "image", "message"))


def show(
    job: JobArgument, server: ServerOption = LOCAL_SERVER, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Show one job; of one that failed, why, and what to do about it."""
    with Client(server, api_key) as client:
        found = client.job(job)
        why = _failure(client, job) if found.status is JobState.FAILED else {}
    shown = found.model_dump(mode="json", exclude_none=True) | why
    lines = [f"{name:<12}{value}" for name, value in shown.items() if name != "links"]
    print_result(shown, "\n".join(lines), as_json)


def _failure(client: Client, job: str) -> dict[str, str]:
    try:
        client.results(job)
    except FoveateError as error:
        return {"code": error.code, "hint": error.hint}
    return {}


def cancel(
    job: JobArgument, server: ServerOption = LOCAL_SERVER, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Stop a job that has not ended; remove one that has, with its results."""
    with Client(server, api_key) as client:
        gone = client.cancel(job)
    print_result(gone, f"{gone.jobID}: {gone.message or gone.status.value}", as_json)


def preview(
    job: JobArgument,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="New file; default ./JOB-preview.tif.")] = None,
    server: ServerOption = LOCAL_SERVER,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Download the coarse mask that a running job under refined coverage shows."""
    with Client(server, api_key) as client:
        file = client.preview(job, out or Path(f"{job}-preview.tif"))
    print_result({"file": str(file)}, str(file), as_json)


def fetch(
    job: JobArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="New directory for the files; default ./JOB.")] = None,
    server: ServerOption = LOCAL_SERVER,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Download the results of a job."""
    with Client(server, api_key) as client:
        files = client.fetch(job, out or Path(job))
    print_warnings(out or Path(job))
    print_result({"files": [str(path) for path in files]}, "\n".join(map(str, files)), as_json)


def _row(job: StatusInfo) -> tuple[str, ...]:
    done = f" {job.progress or 0} %" if job.status is JobState.RUNNING else ""
    created = "" if job.created is None else f"{job.created:%Y-%m-%d %H:%M}"
    image = job.imageName or job.image or ""  # the id, once the image was deleted
    return job.jobID, job.status.value + done, created, job.model or "", image, job.message or ""
