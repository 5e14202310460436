"""One attempt at one job, as the worker's parent hands it to its engine."""

from pathlib import Path

from foveate.schema import SegmentOptions, Wire


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
