"""The files beside an image that GDAL would read with it: which may be read, and what they are called."""

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
    .jgw, .wld...) count, as GDAL's users expect.
    """
    stem, suffix = path.with_suffix(""), path.suffix
    worlds = [f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"] if suffix else [".wld"]
    candidates = [path.with_name(path.name + end) for end in (".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".aux.xml")]
    candidates += [stem.with_name(stem.name + end) for end in [*worlds, ".aux", ".tab"]]
    present = [one for one in dict.fromkeys(candidates) if one.is_file()]
    foreign = [one.name for one in present if not _harmless(one)]
    if foreign:
        return Sidecars(warnings=(f"{', '.join(foreign)} could name other files: no file beside the image is read",))
    return Sidecars(usable=bool(present), names=tuple(one.name for one in present))


def _harmless(path: Path) -> bool:
    try:
        if path.suffix in (".ovr", ".msk"):
            return content_of(path) is Content.TIFF
        if path.name.endswith(".aux.xml"):
            text = path.read_bytes()
            return b"OVERVIEW_FILE" not in text and b"SourceFilename" not in text and b"<VRT" not in text
        return path.suffix != ".aux"
    except (OSError, ImageError):
        # What cannot be read could name anything; the warning says so.
        return False
