"""A run's checkpoint, and the recipe that it belongs to."""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from foveate.errors import OptionInvalid
from model.training.config import TrainConfig, parse_config, read_yaml

__all__ = ["Checkpoints", "claimed_run"]

_RECIPE, _LOCK = "recipe.yaml", "lock"
_FREE = {"run", "output", "threads", "loaders", "checkpoint_minutes", "scores"}
"""What may change from one start of a run to the next."""


class Checkpoints:
    """One file that the same command goes on from; replaced at once, never half written."""

    def __init__(self, path: Path, minutes: float) -> None:
        self._path, self._minutes = path, minutes
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was saved last, on the CPU; None: nothing yet."""
        self._saved = time.monotonic()
        if not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, weights_only=True, map_location="cpu")
        return state

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved >= 60 * self._minutes

    def save(self, state: dict[str, Any]) -> None:
        scratch = self._path.with_suffix(".partial")
        torch.save(state, scratch)
        scratch.replace(self._path)
        self._saved = time.monotonic()


@contextmanager
def claimed_run(config: TrainConfig) -> Iterator[None]:
    """The run's directory, with the recipe in it, for this process alone until it ends or is killed.

    OptionInvalid, naming the fields, if another recipe began there; or if another process trains there.
    """
    entries = config.model_dump(mode="json")
    path = config.run / _RECIPE
    if path.exists():
        began = parse_config(read_yaml(path), str(path)).model_dump(mode="json")
        if fields := list(_differences(_binding(began), _binding(entries))):
            raise OptionInvalid(
                f"{config.run} belongs to another recipe; it differs in {', '.join(fields)}",
                hint="Choose another run, or delete that directory to start again.",
            )
    config.run.mkdir(parents=True, exist_ok=True)
    with (config.run / _LOCK).open("w") as lock:
        try:
            # A record lock is this process's own: loaders that outlive a killed training for a moment do not hold it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise OptionInvalid(
                f"another process is training in {config.run}",
                hint="Wait for it, or name other runs with --only.",
            ) from error
        path.write_text(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
        yield


def _binding(entries: dict[str, Any]) -> dict[str, Any]:
    bundle = {name: value for name, value in entries["bundle"].items() if name != "provenance"}
    return {name: value for name, value in entries.items() if name not in _FREE} | {"bundle": bundle}


def _differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Dotted names of the entries that differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(name), other.get(name), f"{place}.{name}" if place else name)
    elif one != other:
        yield place
