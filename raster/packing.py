"""Bytes for files of our own: packed, and with a checksum. libdeflate and Zstandard, for zlib takes several times as
long for either."""

from typing import Any

import imagecodecs

_LEVEL = 1


def packed(content: Any) -> bytes:
    """These bytes, of any buffer, in fewer."""
    return bytes(imagecodecs.zstd_encode(content, level=_LEVEL))


def unpacked(content: bytes) -> bytes:
    """What `packed` was given. Raises ValueError where it is not of that."""
    try:
        return bytes(imagecodecs.zstd_decode(content))
    except imagecodecs.ZstdError as error:
        raise ValueError(str(error)) from error


def crc32(part: Any, before: int = 0) -> int:
    """The CRC-32, as of zlib, of these bytes after others of that sum."""
    return int(imagecodecs.deflate_crc32(part, before))
