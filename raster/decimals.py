"""Numbers as text, millions at a time: JSON's own encoders take one number after the other."""

import numpy as np
from numpy.typing import NDArray

_Columns = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]
"""(n, width) characters, and which of them are used; None: all."""

_DIGITS = 12
_GROUPS = np.frombuffer(b"".join(b"%04d" % number for number in range(10_000)), np.uint32)
"""Four digits of ASCII for each number below 10 000."""


def point_text(points: NDArray[np.int64], decimals: int) -> tuple[bytes, NDArray[np.int64]]:
    """`points` (n, 2), in units of 10^-decimals, as JSON arrays "[x,y]," one after the other, and where each ends.

    The absolute values must be below 10^12. The second array is (n + 1,) and begins with 0.
    """
    count = len(points)
    x, y = _number_text(points[:, 0], decimals), _number_text(points[:, 1], decimals)
    columns = [*_column(b"[", count), *x, *_column(b",", count), *y, *_column(b"],", count)]
    text = np.concatenate([characters for characters, _ in columns], axis=1)
    if all(kept is None for _, kept in columns):
        return text.tobytes(), text.shape[1] * np.arange(count + 1)
    used = np.concatenate([_everywhere(part) if kept is None else kept for part, kept in columns], axis=1)
    return text[used].tobytes(), np.concatenate([[0], np.cumsum(np.count_nonzero(used, axis=1))])


def _number_text(values: NDArray[np.int64], decimals: int) -> list[_Columns]:
    """The characters of each number."""
    size, negative = np.abs(values), values < 0
    largest, smallest = int(size.max(initial=0)), int(size.min(initial=10**_DIGITS))
    small = size.astype(np.uint32) if largest < 2**32 else size  # twice as fast to divide
    groups = np.stack([small // 10**8, small // 10**4 % 10**4, small % 10**4], axis=1)
    digits = _GROUPS[groups].view(np.uint8)
    point = _DIGITS - decimals
    # As many columns before the point as the largest number needs, and one at least.
    first = min(point - 1, _DIGITS - len(str(largest)))
    sign = _column(b"-", len(values))[0][0]
    columns: list[_Columns] = []
    if negative.any():
        columns.append((sign, None if negative.all() else negative[:, None]))
    if smallest >= 10 ** (_DIGITS - 1 - first):
        columns.append((digits[:, first:point], None))
    else:
        leading = small[:, None] >= 10 ** np.arange(_DIGITS - 1 - first, decimals, -1, dtype=np.int64)
        columns += [(digits[:, first : point - 1], leading), (digits[:, point - 1 : point], None)]
    if decimals:
        columns += [*_column(b".", len(values)), (digits[:, point:], None)]
    return columns


def _everywhere(characters: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ones(characters.shape, bool)


def _column(characters: bytes, count: int) -> list[_Columns]:
    return [(np.broadcast_to(np.frombuffer(characters, np.uint8), (count, len(characters))), None)]
