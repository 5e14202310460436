"""The bundles that are here, known by their cards alone: no weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.card import read_card
from foveate.errors import BundleInvalid, BundleUnknown, FoveateError
from foveate.schema import BundleCard

__all__ = ["BrokenBundle", "Bundle", "Catalog"]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose card is right; `card.name` is its name."""

    directory: Path
    card: BundleCard


@dataclass(frozen=True)
class BrokenBundle:
    """A directory that should be a bundle and is not, with the reason."""

    directory: Path
    error: FoveateError

    @property
    def reason(self) -> str:
        """The error's message with the directory's name for its path: clients of a service learn no more."""
        return self.error.message.replace(str(self.directory), self.directory.name)


class Catalog:
    """The bundles of some directories, the earlier directory winning where two bundles share a name.

    Looks at the disk anew on every call: cards are small, and a bundle may be added at any time.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)

    def bundles(self) -> list[Bundle]:
        """The bundles that can be used, by name."""
        return sorted(self._scan()[0].values(), key=lambda bundle: bundle.card.name)

    def broken(self) -> list[BrokenBundle]:
        """What cannot be used, and why."""
        return self._scan()[1]

    def bundle(self, name: str) -> Bundle:
        """The bundle called `name`; BundleUnknown, or BundleInvalid if its directory is broken."""
        sound, broken = self._scan()
        if name in sound:
            return sound[name]
        for bundle in broken:
            if bundle.directory.name == name:
                raise BundleInvalid(f"model {name!r} cannot be used: {bundle.reason}", hint=bundle.error.hint)
        known = ", ".join(sorted(sound)) or "none"
        raise BundleUnknown(f"no model {name!r}", hint=f"models here: {known}")

    def _scan(self) -> tuple[dict[str, Bundle], list[BrokenBundle]]:
        sound: dict[str, Bundle] = {}
        broken: list[BrokenBundle] = []
        for directory in self._directories:
            if not directory.is_dir():
                continue
            for candidate in sorted(directory.iterdir()):
                if not candidate.is_dir() or candidate.name.startswith("."):
                    continue
                try:
                    card = read_card(candidate)
                except FoveateError as error:
                    broken.append(BrokenBundle(candidate, error))
                else:
                    sound.setdefault(card.name, Bundle(candidate, card))
        return sound, broken
