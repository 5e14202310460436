"""Which licences let everybody use a model for everything; any other one is told whenever the model is used."""

from foveate.schema import BundleCard

__all__ = ["is_open", "restriction"]

_OPEN = frozenset(
    {
        "0bsd",
        "afl-3.0",
        "agpl-3.0-only",
        "agpl-3.0-or-later",
        "apache-2.0",
        "artistic-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-2.0",
        "ecl-2.0",
        "epl-2.0",
        "eupl-1.2",
        "gpl-2.0-only",
        "gpl-2.0-or-later",
        "gpl-3.0-only",
        "gpl-3.0-or-later",
        "isc",
        "lgpl-2.1-only",
        "lgpl-2.1-or-later",
        "lgpl-3.0-only",
        "lgpl-3.0-or-later",
        "mit",
        "mpl-2.0",
        "ncsa",
        "odbl-1.0",
        "odc-by-1.0",
        "pddl-1.0",
        "unlicense",
        "upl-1.0",
        "zlib",
    }
)
"""SPDX identifiers, in small letters, of licences that know no forbidden user and no forbidden purpose."""


def is_open(licence: str) -> bool:
    """Whether `licence` is an SPDX identifier that we know to leave the use of a model free; unknown ones are not."""
    return licence.strip().lower() in _OPEN


def restriction(card: BundleCard) -> str | None:
    """What a user of the model has to be told about its licence, None where it is open."""
    if is_open(card.licence):
        return None
    return f"model {card.name} {card.version} is not free for every use; its licence: {card.licence}"
