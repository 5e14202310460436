"""What was found out about files by reading some of them, kept so that every further handle opens at once."""

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 256


class Verdicts(Generic[T]):
    """One answer for each file and question, as long as the file stays as it is; for the whole process."""

    def __init__(self) -> None:
        self._found: dict[Hashable, T] = {}

    def about(self, paths: Iterable[Path], question: Hashable, find: Callable[[], T]) -> T:
        """The answer; what `find` gives where the files have another time or length than when they were asked about."""
        key = tuple((path, stat.st_mtime_ns, stat.st_size) for path in paths for stat in (path.stat(),)), question
        try:
            return self._found[key]
        except KeyError:
            answer = find()
        # Other threads may clear it at any moment.
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[key] = answer
        return answer
