"""What a file is by its first bytes; names and extensions are never asked.

Magic numbers: TIFF 6.0 section 2 and the BigTIFF design; JPEG (ITU-T T.81), PNG (W3C), JPEG 2000 part 1 annex I,
DICOM PS3.10 section 7.1, RIFF/WebP, BMP, GIF.
"""

from enum import StrEnum
from pathlib import Path

from foveate.errors import ImageMissing, ImageUnreadable, ImageUnsupported

FORMATS_HINT = (
    "Give a slide (SVS, NDPI, MIRAX, SCN, BIF, DICOM, pyramidal TIFF), a GeoTIFF or COG, or a JPEG, JPEG 2000 or PNG."
)


class Content(StrEnum):
    """The containers that a reader here takes; UNKNOWN may still be one of OpenSlide's own formats."""

    TIFF = "TIFF"
    JPEG = "JPEG"
    PNG = "PNG"
    JP2 = "JPEG 2000"
    DICOM = "DICOM"
    PICTURE = "picture"
    """BMP, GIF or WebP."""
    FOLDER = "folder"
    UNKNOWN = "unknown"


_MAGIC = {
    b"II*\0": Content.TIFF,
    b"MM\0*": Content.TIFF,
    b"II+\0": Content.TIFF,
    b"MM\0+": Content.TIFF,
    b"\xff\xd8\xff": Content.JPEG,
    b"\x89PNG\r\n\x1a\n": Content.PNG,
    b"\0\0\0\x0cjP  \r\n\x87\n": Content.JP2,
    b"\xff\x4f\xff\x51": Content.JP2,
    b"BM": Content.PICTURE,
    b"GIF87a": Content.PICTURE,
    b"GIF89a": Content.PICTURE,
}


def content_of(path: Path) -> Content:
    """The container of the file or folder at `path`; ImageMissing, ImageUnreadable (empty), ImageUnsupported (VRT)."""
    path = local_path(path)
    if path.is_dir():
        return Content.FOLDER
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ImageUnreadable(
            f"{path.name} cannot be read: {error.strerror}", hint="Check the file's permissions."
        ) from error
    if not head:
        raise ImageUnreadable(f"{path.name} is empty (0 bytes)", hint="Copy or upload the file again.")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<VRTDataset", b"<OGRVRT")) or b"<VRTDataset" in head:
        raise ImageUnsupported(
            f"{path.name} is a VRT: it names other files, and such files are never followed",
            hint="Turn it into one file first: gdal_translate -of COG in.vrt out.tif",
        )
    if head[128:132] == b"DICM":
        return Content.DICOM
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Content.PICTURE
    return next((content for magic, content in _MAGIC.items() if head.startswith(magic)), Content.UNKNOWN)


def local_path(path: Path) -> Path:
    """`path`, absolute, if it is an existing local file or folder; no URL, no GDAL prefix ever gets further."""
    text = str(path)
    if "\0" in text or "://" in text or ":/" in text or text.startswith("/vsi"):
        raise ImageUnsupported(
            f"{text!r} is not the path of a local file", hint="Download the image and give its path."
        )
    try:
        absolute = path.absolute()
        exists = absolute.is_file() or absolute.is_dir()
    except OSError:
        exists = False
    if not exists:
        raise ImageMissing(f"{text} does not exist", hint="Check the path of the image.")
    try:
        str(absolute).encode()
    except UnicodeEncodeError as error:
        # Bytes of the name that are no UTF-8 stand as lone surrogates, which neither GDAL nor a manifest takes.
        raise ImageUnsupported(
            f"the path {str(absolute)!a} is not UTF-8",
            hint="Rename what is not, or give a link with another name.",
        ) from error
    return absolute


def unsupported(path: Path, reason: str) -> ImageUnsupported:
    return ImageUnsupported(f"{path.name} is no image that Foveate reads: {reason}", hint=FORMATS_HINT)
