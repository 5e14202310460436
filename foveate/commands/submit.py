"""`foveate submit`: images to a service, and on request their results back."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from foveate.client import Client
from foveate.errors import FoveateError, Interrupted, ServiceUnreachable
from foveate.localfiles import check_image, check_new
from foveate.options import (
    LOCAL_SERVER,
    BandsOption,
    CoverageOption,
    DetailOption,
    ForceOption,
    KeyOption,
    MaskDownsampleOption,
    ModelOption,
    OutputsOption,
    OverlapOption,
    PolicyOption,
    RegionsOption,
    RescaleOption,
    RoiOption,
    ServerOption,
    SpacingOption,
    TissueMaskOption,
    segment_options,
)
from foveate.output import JsonFlag, error_document, print_error, print_table, print_warnings
from foveate.progress import show_progress
from foveate.schema import JobState, SegmentOptions, StatusInfo


@dataclass
class Submission:
    """One image on its way; `out` is where its results will lie, the rest is what the service says."""

    image: str
    out: str | None
    imageID: str | None = None  # noqa: N815
    jobID: str | None = None  # noqa: N815
    status: str = "not sent"
    error: dict[str, str] | None = None
    exit_code: int = 0

    @property
    def fetched(self) -> str | None:
        """Where its results lie, if they are here."""
        return None if self.out is None or self.status != JobState.SUCCESSFUL or self.exit_code else self.out

    def fail(self, error: FoveateError) -> None:
        self.error = error_document(error)
        self.exit_code = error.exit_code
        print_error(error, self.image)


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Files; a .zip is one slide of several files.")
    ],
    server: ServerOption = LOCAL_SERVER,
    api_key: KeyOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the jobs have ended.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New directory for the results (several images: one below it each); waits."),
    ] = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    coverage: CoverageOption = None,
    detail: DetailOption = None,
    overlap: OverlapOption = 0.25,
    roi: RoiOption = None,
    spacing: SpacingOption = None,
    bands: BandsOption = None,
    rescale: RescaleOption = None,
    mask_downsample: MaskDownsampleOption = 1,
    tissue_mask: TissueMaskOption = True,
    force: ForceOption = False,
    regions: RegionsOption = True,
    outputs: OutputsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Send images to a service and start a segmentation of each."""
    options = segment_options(
        model=model,
        policy=policy,
        coverage=coverage,
        detail=detail,
        overlap=overlap,
        roi=roi,
        spacing=spacing,
        bands=bands,
        rescale=rescale,
        mask_downsample=mask_downsample,
        tissue_mask=tissue_mask,
        force=force,
        regions=regions,
        outputs=outputs,
    )
    submissions = _planned(images, out)
    with Client(server, api_key) as client, _interruptible(submissions):
        for submission in submissions:
            _send(client, submission, options)
        if wait or out is not None:
            for submission in submissions:
                _finish(client, submission)
    heads = ("job", "status", "image", "results")[: 3 if out is None else 4]
    cells = [(entry.jobID or "-", entry.status, entry.image, entry.fetched or "-") for entry in submissions]
    rows = [row[: len(heads)] for row in cells]
    print_table({"jobs": [asdict(entry) for entry in submissions]}, heads, rows, as_json)
    raise typer.Exit(max(entry.exit_code for entry in submissions))


@contextmanager
def _interruptible(submissions: list[Submission]) -> Iterator[None]:
    """Ctrl-C ends the waiting, not the jobs: the same command again would send every image once more."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        told = [*_loose(submissions), *_known(submissions)]
        if not told:
            raise
        messages, hints = zip(*told, strict=True)
        raise Interrupted(f"interrupted; {'; '.join(messages)}", hint="; ".join(hints)) from interrupt


def _loose(submissions: list[Submission]) -> Iterator[tuple[str, str]]:
    """What to say of an image that was sent, and whose job was being asked for."""
    for image in [entry.imageID for entry in submissions if entry.imageID is not None and entry.jobID is None]:
        yield (
            f"the service has image {image}, and perhaps a job of it",
            f"`foveate jobs list` tells; if there is none, `foveate images delete {image}` removes the image",
        )


def _known(submissions: list[Submission]) -> Iterator[tuple[str, str]]:
    """What to say of the jobs that were answered."""
    jobs = {entry.jobID: JobState(entry.status) for entry in submissions if entry.jobID is not None}
    # Of these alone: to cancel a job that has ended removes its results.
    going = [job for job, state in jobs.items() if not state.terminal]
    named = going or list(jobs)
    name = named[0] if len(named) == 1 else "ID"
    if going:
        hint = f"`foveate jobs fetch {name}` gets its results once it is done, `foveate jobs cancel {name}` ends it"
        yield f"the service goes on with job {', '.join(going)}", hint
    elif named:
        yield f"job {', '.join(named)} has ended", f"`foveate jobs fetch {name}` gets its results"


def _planned(images: list[Path], out: Path | None) -> list[Submission]:
    """Everything that can be wrong before the first byte is sent."""
    for image in images:
        check_image(image)
    if out is None:
        return [Submission(str(image), None) for image in images]
    check_new(out)
    if len(images) == 1:
        return [Submission(str(images[0]), str(out))]
    # A number where two images have one name.
    names: list[str] = []
    for image in images:
        name, number = image.stem, 2
        while name in names:
            name, number = f"{image.stem}-{number}", number + 1
        names.append(name)
    return [Submission(str(image), str(out / name)) for image, name in zip(images, names, strict=True)]


def _send(client: Client, submission: Submission, options: SegmentOptions) -> None:
    image = Path(submission.image)
    try:
        with show_progress(f"upload {image.name}") as report:
            stored = client.upload(image, lambda share: report(share, ""))
        submission.imageID = stored.id
        try:
            job = client.submit(stored.id, **options.model_dump())
        except ServiceUnreachable:
            raise  # there may be a job, which needs the image
        except FoveateError:
            with suppress(FoveateError):
                client.delete_image(stored.id)  # nobody would know of it
                submission.imageID = None
            raise
    except FoveateError as error:
        submission.fail(error)
    else:
        submission.jobID, submission.status = job.jobID, job.status.value
        typer.echo(f"{submission.image}: job {job.jobID}", err=True)


def _finish(client: Client, submission: Submission) -> None:
    if submission.jobID is None:
        return
    try:
        with show_progress(f"segment {Path(submission.image).name}") as report:

            def show(status: StatusInfo) -> None:
                submission.status = status.status.value
                report((status.progress or 0) / 100, status.message or status.status.value)

            client.wait(submission.jobID, show)
        if submission.status == JobState.DISMISSED:
            submission.exit_code = 1
        elif submission.out is not None:
            client.fetch(submission.jobID, Path(submission.out))
            print_warnings(Path(submission.out))
    except FoveateError as error:
        submission.fail(error)
