"""Labelled images that a loader process keeps open, within a bound of memory."""

from collections import OrderedDict
from collections.abc import Sequence

from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.pair import Pair
from model.training.config import TrainConfig

__all__ = ["OpenImages"]

_MEMORY = 1 << 30
"""Decoded chunks of a process, all images together."""
_LEAST = 96 << 20
"""Of one image: fewer chunks would be decoded again and again."""


class OpenImages:
    """The images of `pairs` by index, each opened when it is first asked for; the longest unused is closed.

    Nothing is open in what another process receives.
    """

    def __init__(self, pairs: Sequence[Pair], config: TrainConfig) -> None:
        self._pairs, self._data, self._card = list(pairs), config.data, config.bundle
        self._each = max(_LEAST, _MEMORY // max(1, len(self._pairs)))
        self._open: OrderedDict[int, LabelledImage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> LabelledImage:
        if index not in self._open:
            while len(self._open) * self._each >= _MEMORY:
                self._open.popitem(last=False)[1].close()
            self._open[index] = open_labelled(self._pairs[index], self._data, self._card, self._each)
        self._open.move_to_end(index)
        return self._open[index]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}
