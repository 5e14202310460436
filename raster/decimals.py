"""Numbers as text, millions at a time: JSON's own encoders take one number after the other."""

import numpy as np
from numpy.typing import NDArray

_DIGITS = 12
_GROUPS = np.frombuffer(b"".join(b"%04d" % number for number in range(10_000)), np.uint32)
"""Four digits of ASCII for each number below 10 000."""


def point_text(points: NDArray[np.int64], decimals: int) -> tuple[bytes, NDArray[np.int64]]:
    """`points` (n, 2), in units of 10^-decimals, as JSON arrays "[x,y]," one after the other, and where each ends.

    The absolute values must be below 10^12. The second array is (n + 1,) and begins with 0.
    """
    x, y = _number_text(points[:, 0], decimals), _number_text(points[:, 1], decimals)
    columns = [_column(b"[", len(points)), x, _column(b",", len(points)), y, _column(b"],", len(points))]
    text = np.concatenate([characters for characters, _ in columns], axis=1)
    used = np.concatenate([kept for _, kept in columns], axis=1)
    return text[used].tobytes(), np.concatenate([[0], np.cumsum(np.count_nonzero(used, axis=1))])


def _number_text(values: NDArray[np.int64], decimals: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(n, width) characters of each number, and which of them are used."""
    size = np.abs(values)
    largest = int(size.max(initial=0))
    small = size.astype(np.uint32) if largest < 2**32 else size  # twice as fast to divide
    groups = np.stack([small // 10**8, small // 10**4 % 10**4, small % 10**4], axis=1)
    digits = _GROUPS[groups].view(np.uint8)
    point = _DIGITS - decimals
    # As many columns before the point as the largest number needs, and one at least.
    first = min(point - 1, _DIGITS - len(str(largest)))
    leading = small[:, None] >= 10 ** np.arange(_DIGITS - 1 - first, decimals, -1, dtype=np.int64)
    always = np.ones((len(values), 1), bool)
    parts = [(_column(b"-", len(values))[0], (values < 0)[:, None]), (digits[:, first : point - 1], leading)]
    parts.append((digits[:, point - 1 : point], always))
    if decimals:
        parts += [_column(b".", len(values)), (digits[:, point:], np.repeat(always, decimals, axis=1))]
    return np.concatenate([part for part, _ in parts], axis=1), np.concatenate([kept for _, kept in parts], axis=1)


def _column(characters: bytes, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    shape = (count, len(characters))
    return np.broadcast_to(np.frombuffer(characters, np.uint8), shape), np.ones(shape, bool)
