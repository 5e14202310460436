"""The files beside an image that GDAL would read with it: which may be read, and what they are called."""

import html
import os
from dataclasses import dataclass
from pathlib import Path

import tifffile

from raster.content import Content, content_of

_GDAL_ENDS = (".ovr", ".msk", ".aux.xml", ".aux")
_GDAL_METADATA = 42112


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
    present = [one for one in _beside(path, [stem + end for end in [*worlds, ".aux", ".tab"]]) if one.is_file()]
    foreign = [one.name for one in present if not _harmless(one)]
    if foreign:
        return Sidecars(warnings=(f"{', '.join(foreign)} could name other files: no file beside the image is read",))
    return Sidecars(usable=bool(present), names=tuple(one.name for one in present))


def names_other_files(metadata: bytes) -> bool:
    """Whether GDAL's metadata, as XML, could make it open another file as overviews, mask or source."""
    text = html.unescape(metadata.decode("latin-1")).upper()
    return any(word in text for word in ("OVERVIEW_FILE", "SOURCEFILENAME", "<VRT"))


def _beside(path: Path, names: list[str]) -> list[Path]:
    """What is called so in the image's folder, and its overviews, masks and metadata, and theirs; whatever the case."""
    wanted, own = {name.lower() for name in names}, f"{path.name.lower()}."
    try:
        there = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        return []
    found = [
        name
        for name in there
        if name.lower() in wanted or (name.lower().startswith(own) and name.lower().endswith(_GDAL_ENDS))
    ]
    return [path.with_name(name) for name in sorted(found)]


def _metadata_of(path: Path) -> list[bytes]:
    """GDAL's metadata in all directories of a TIFF."""
    with tifffile.TiffFile(path, _multifile=False) as file:
        tags = [tag for page in file.pages for tag in page.aspage().tags.getall(_GDAL_METADATA) or []]
        return [value if isinstance(value, bytes) else str(value).encode() for value in (tag.value for tag in tags)]


def _harmless(path: Path) -> bool:
    name = path.name.lower()
    try:
        if name.endswith((".ovr", ".msk")):
            return content_of(path) is Content.TIFF and not any(map(names_other_files, _metadata_of(path)))
        if name.endswith(".aux.xml"):
            return not names_other_files(path.read_bytes())
        return not name.endswith(".aux")
    except Exception:
        # What cannot be read could name anything; the warning says so.
        return False
