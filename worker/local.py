"""`foveate segment`: the pipeline in this process, on a local file, published by one rename."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from foveate.bundles import named_bundle
from foveate.errors import (
    NO_ROOM,
    CanvasMismatch,
    InputError,
    MemoryTooSmall,
    NotFound,
    OptionInvalid,
    OutputExists,
    disk_errors,
)
from foveate.localfiles import check_unasked
from foveate.schema import BundleCard, ImageInfo, SegmentOptions
from jobs.catalog import Catalog
from jobs.files import sync_tree
from raster.fit import choose_bundle
from raster.image import ImageRef, open_image
from worker.job import Report
from worker.manifest import file_sha256
from worker.pipeline import PREVIEWED, run
from worker.spec import JobSpec

_CANVAS = "canvas"


def segment(
    image: Path,
    out: Path,
    options: SegmentOptions,
    *,
    catalog: Catalog,
    machine: Mapping[str, Any],
    overwrite: bool,
    report: Report,
) -> dict[str, Any]:
    """Segment `image` into the directory `out`; returns the manifest.

    `options.model` may be a name, a bundle's directory or that of a finished training run. `machine` holds `device`,
    `memory_gb`, `batch` and `block`. Work lies in `out`.partial, which goes when all is well. Raises OutputExists where
    `out` may not be replaced, or that place is taken.
    """
    _check_out(image, out, overwrite=overwrite)
    ref = ImageRef(image.absolute())  # a link stays one: sidecars lie beside it
    with closing(open_image(ref)) as opened:
        info = opened.info
    directory, options = _bundle(info, options, catalog)
    partial = out.with_name(out.name + ".partial")
    _check_partial(image, partial)
    fresh = not partial.exists()
    with disk_errors(partial), _own(partial):
        spec = JobSpec(
            job_id="local",
            image=ref.path,
            image_name=image.name,
            image_sha256=file_sha256(ref.path),
            reader=info.reader,
            sidecars=True,
            options=options,
            model=directory,
            out=partial / "out",
            canvas=partial / _CANVAS,
            **machine,
        )
        content = _worked(spec, report, fresh=fresh)
        _check_still(image, out, partial, overwrite=overwrite)
        _publish(spec.out, out)
        shutil.rmtree(partial)
    return content


def _worked(spec: JobSpec, report: Report, *, fresh: bool) -> dict[str, Any]:
    """Go on with the work in the canvas, to the end; the manifest.

    What the user must mend leaves nothing of `fresh` work behind; after anything else the same command goes on.
    """
    spec.canvas.mkdir(exist_ok=True)
    shutil.rmtree(spec.out, ignore_errors=True)
    spec.preview.unlink(missing_ok=True)

    def tell(stage: str, share: float) -> None:
        report(f"{stage}: {spec.preview}" if stage == PREVIEWED else stage, share)

    try:
        return run(spec, tell, lambda: False)
    except (InputError, NotFound, MemoryTooSmall) as error:
        if fresh and not isinstance(error, CanvasMismatch):
            shutil.rmtree(spec.canvas.parent)
        raise


def _bundle(info: ImageInfo, options: SegmentOptions, catalog: Catalog) -> tuple[Path, SegmentOptions]:
    """The bundle's directory, and the options with its name."""
    if options.model is not None:
        return named_bundle(options.model, lambda name: catalog.bundle(name).directory).resolve(), options
    cards: dict[str, BundleCard] = {bundle.card.name: bundle.card for bundle in catalog.bundles()}
    name = choose_bundle(info, cards, options)
    return catalog.bundle(name).directory, options.model_copy(update={"model": name})


@contextlib.contextmanager
def _own(partial: Path) -> Iterator[None]:
    """The work directory, for this process alone. Raises OptionInvalid where it cannot be made."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise OptionInvalid(
            f"--out: the directory {partial} cannot be made: {error.strerror}",
            hint="choose another --out, or mend the permissions there",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputExists(
                f"another process is working in {partial}", hint="wait for it, or choose another --out"
            ) from error
        yield
    finally:
        os.close(handle)


def _check_out(image: Path, out: Path, *, overwrite: bool) -> None:
    """Raises OutputExists where `out` may not be replaced: without a word, or because it is something else."""
    if out.resolve().is_relative_to(image.resolve()):
        raise OutputExists(f"{out} lies in the image, or is the image", hint="choose an --out elsewhere")
    check_unasked(out, overwrite=overwrite)
    if not os.path.lexists(out):
        return
    replaceable = (out / "manifest.json").is_file() or not (out.is_dir() and any(out.iterdir()))
    if not out.is_dir() or not replaceable or _holds(out, image):
        raise OutputExists(
            f"{out} is no result of an earlier run, or holds the image: it is not replaced", hint="choose another --out"
        )


def _check_still(image: Path, out: Path, partial: Path, *, overwrite: bool) -> None:
    """As `_check_out`, of what has come to lie there while the work in `partial` was done."""
    try:
        _check_out(image, out, overwrite=overwrite)
    except OutputExists as error:
        raise OutputExists(
            f"{error.message}: it appeared meanwhile, and the work lies finished in {partial}",
            hint="move it away, and run the same command again",
        ) from error


def _check_partial(image: Path, partial: Path) -> None:
    """Raises OutputExists where the place of the work, which is removed in the end, is something else.

    What is made there begins with a canvas.
    """
    if not partial.is_dir():
        return
    names = sorted(path.name for path in partial.iterdir())
    if (names and _CANVAS not in names) or _holds(partial, image):
        raise OutputExists(
            f"{partial}, where the work would lie, holds {'the image' if _CANVAS in names else names[0]}",
            hint="choose another --out, or move that away",
        )


def _holds(directory: Path, image: Path) -> bool:
    """Whether the image, or the link that names it, lies in the directory."""
    return any(
        place.is_relative_to(directory.resolve()) for place in (image.resolve(), image.parent.resolve() / image.name)
    )


def _publish(made: Path, out: Path) -> None:
    """Put the finished directory in the place of `out`; an older result stays whole until the new one is there."""
    sync_tree(made)
    older = out.with_name(f".{out.name}.older")
    if os.path.lexists(out):
        _remove(older)
        out.rename(older)
    made.rename(out)
    _remove(older)  # also what an interruption between the two renames left


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
