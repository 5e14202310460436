"""One attempt at one job, as the worker's parent hands it to its engine."""

import hashlib
from pathlib import Path

import foveate
from foveate.schema import SegmentOptions, Wire
from jobs.files import PREVIEW

__all__ = ["CANVAS_FORMAT", "JobSpec", "canvas_digest"]

CANVAS_FORMAT = 2
"""Of what is committed to a canvas: another number wherever work of before cannot be gone on with."""


class JobSpec(Wire):
    """Everything that the pipeline needs and nothing else; crosses the pipe as JSON."""

    job_id: str
    image: Path
    """What to open: a file, or the directory of a DICOM series."""
    image_name: str
    """The user's name of the image, for the manifest; never opened."""
    image_sha256: str
    reader: str
    """The reader that probed the image; one job uses one reader."""
    sidecars: bool = False
    """Uploaded images never read .ovr, .msk or .aux.xml."""
    options: SegmentOptions
    model: Path
    """Directory of the bundle."""
    out: Path
    """Does not exist yet; the pipeline makes it and fills it with the files of design 4.2."""
    canvas: Path
    """Committed blocks, shared by all attempts at the same configuration; exists, perhaps empty."""
    device: str
    memory_gb: float
    batch: int | None = None
    block: int | None = None
    archive: bool = False
    """A store of many files becomes one file, which a service can hand out."""

    @property
    def preview(self) -> Path:
        """Where refined coverage shows its mask while the job runs: beside `out`, for it is no part of the result."""
        return self.out.with_name(PREVIEW)


def canvas_digest(
    *,
    image_sha256: str,
    reader: str,
    bundle_sha256: str,
    options: SegmentOptions,
    machine: tuple[str, float, int | None, int | None],
) -> str:
    """Names the canvas that this configuration may continue: whatever can change a committed block is in it.

    `machine` is (device, memory in GB, block, batch): memory and block decide how the image is cut into blocks, another
    batch may change single pixels.
    """
    asked = options.model_dump_json(exclude={"regions"})
    parts = (foveate.__version__, str(CANVAS_FORMAT), image_sha256, reader, bundle_sha256, asked, *map(str, machine))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
