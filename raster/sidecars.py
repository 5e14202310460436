"""The files beside an image that GDAL would read with it: which may be read, and what they are called."""

import html
import os
from dataclasses import dataclass
from pathlib import Path

from foveate.errors import ImageError
from raster.content import Content, content_of


@dataclass(frozen=True)
class Sidecars:
    """`usable`: GDAL may look beside the image. `names`: what lies there. `warnings`: why not, if so."""

    usable: bool = False
    names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_sidecars(path: Path) -> Sidecars:
    """The sidecars of the image at `path`.

    GDAL opens overviews and masks with any driver, so a VRT among them could name any file of the machine: unless
    .ovr and .msk are TIFFs, and .aux.xml points to no other file, none of the sidecars is used. World files (.tfw,
    .jgw, .wld...) count, as GDAL's users expect; upper and lower case are the same, as they are to GDAL.
    """
    stem, suffix = path.stem, path.suffix
    worlds = [f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"] if suffix else [".wld"]
    candidates = [path.name + end for end in (".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".aux.xml")]
    candidates += [stem + end for end in [*worlds, ".aux", ".tab"]]
    present = [one for one in _beside(path, candidates) if one.is_file()]
    foreign = [one.name for one in present if not _harmless(one)]
    if foreign:
        return Sidecars(warnings=(f"{', '.join(foreign)} could name other files: no file beside the image is read",))
    return Sidecars(usable=bool(present), names=tuple(one.name for one in present))


def names_other_files(metadata: bytes) -> bool:
    """Whether GDAL's metadata, as XML, could make it open another file as overviews, mask or source."""
    text = html.unescape(metadata.decode("latin-1")).upper()
    return any(word in text for word in ("OVERVIEW_FILE", "SOURCEFILENAME", "<VRT"))


def _beside(path: Path, names: list[str]) -> list[Path]:
    """What is called so in the image's folder, in the order of `names`, whatever the case of its letters."""
    order = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    try:
        found = [entry.name for entry in os.scandir(path.parent) if entry.name.lower() in order]
    except OSError:
        return []
    return [path.with_name(name) for name in sorted(found, key=lambda name: (order[name.lower()], name))]


def _harmless(path: Path) -> bool:
    name = path.name.lower()
    try:
        if name.endswith((".ovr", ".msk")):
            return content_of(path) is Content.TIFF
        if name.endswith(".aux.xml"):
            return not names_other_files(path.read_bytes())
        return not name.endswith(".aux")
    except (OSError, ImageError):
        # What cannot be read could name anything; the warning says so.
        return False
