"""Which children under a root are looked at closer, learnt while it is refined; numpy, never torch.

A coarse prediction may be sure and wrong: a pond taken for a lawn. What shows it without any label is a finer
prediction of something that looked the same: where that changed the scores more than the coarse entropy promised, its
likes are worth more; where it changed them less, they are worth less. docs/method/adaptive-signals.md has the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.tree import Node

__all__ = ["Candidate", "Chooser"]

_PROBE_EVERY = 6
"""One child in so many along each axis is a probe, a starting point for learning."""
_PROBE_SHARE = 0.25
"""Of the threshold: what a probe must need to be run."""
_ALIKE = 0.3
"""Distance of two mean predictions at which what was learnt from one counts 0.6 for the other."""
_PRIOR = 0.5
"""How many observations the expectation counts for."""
_EXPECTED = 1 / 3
"""The change of scores, summed over classes, for each nat of coarse entropy."""
_LEAST_ENTROPY = 0.02
_MOST = 10.0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A child that may be run. `need`: its parent's scale times `entropy`, or any signal that a threshold can part."""

    node: Node
    need: float
    entropy: float = 0.0
    """Mean entropy (nats) of the parent's scores over the child's square."""
    look: NDArray[np.float32] | None = None
    """(K,) the parent's mean scores over the child's square; None: the need alone decides."""


class Chooser:
    """The decisions on the children of one level under one root. Changes as predictions come in."""

    def __init__(self, candidates: Sequence[Candidate], threshold: float) -> None:
        self._candidates = candidates
        self._need = np.array([one.need for one in candidates])
        self._threshold = threshold
        self._surprise = np.full(len(candidates), np.nan)
        self._asked = np.zeros(len(candidates), bool)
        looks = [one.look for one in candidates if one.look is not None]
        self._likeness = _likeness(np.stack(looks)) if looks else None

    def next(self) -> list[int]:
        """The candidates to run now, in their order; every one of them is then to be told to `observe`. Empty: done."""
        wanted = self._need * self._factor() > self._threshold
        if self._likeness is not None and not self._asked.any():
            probes = [_is_probe(one.node) for one in self._candidates]
            wanted |= np.array(probes) & (self._need > _PROBE_SHARE * self._threshold)
        wanted &= ~self._asked
        self._asked |= wanted
        return [int(index) for index in np.flatnonzero(wanted)]

    def observe(self, index: int, change: float) -> None:
        """How much the scores over the candidate's square changed: absolute differences, summed over classes."""
        expected = _EXPECTED * max(self._candidates[index].entropy, _LEAST_ENTROPY)
        self._surprise[index] = min(change / expected, _MOST)

    def _factor(self) -> NDArray[np.float64] | float:
        """What every need is worth after what was observed; 1 before."""
        known = ~np.isnan(self._surprise)
        if self._likeness is None or not known.any():
            return 1.0
        weights = self._likeness[:, known]
        factor: NDArray[np.float64] = (_PRIOR + weights @ self._surprise[known]) / (_PRIOR + weights.sum(axis=1))
        return factor


def _likeness(looks_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, N): 1 for the same look, falling as a Gaussian."""
    apart = ((looks_NK[:, None].astype(np.float64) - looks_NK[None]) ** 2).sum(axis=2)
    likeness: NDArray[np.float64] = np.exp(-apart / (2 * _ALIKE**2))
    return likeness


def _is_probe(node: Node) -> bool:
    return node.row % _PROBE_EVERY == _PROBE_EVERY // 2 == node.column % _PROBE_EVERY
