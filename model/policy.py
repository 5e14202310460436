"""Policies at inference: from the distribution over fields of view to what each cell sees. Needs numpy, never torch.

Everything here is deterministic: the same distribution, policy and cell numbers give the same choice, whatever blocks
or regions the work is cut into. Letters: D fields of view, ascending; N cells.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveate.card import check_policy

__all__ = ["TAU_END", "Choice", "choose"]

TAU_END = math.exp(-1.0)
"""Where the paper's temperature, max(0.1, exp(-t / T)), ends."""


@dataclass(frozen=True)
class Choice:
    """What every cell sees.

    `kind` "single": the field of view `index`; one forward. "mixed": the sum of the D patches weighted with `weights`;
    one forward. "ensemble": each of the D patches by itself, and the mean of their scores; D forwards.
    """

    kind: Literal["single", "mixed", "ensemble"]
    index: NDArray[np.int8]
    """(N,), 0-based chosen field of view; where several are seen, the one of the largest weight or, for an ensemble, of
    the largest probability (the lowest on a tie)."""
    weights: NDArray[np.float32] | None
    """(N, D), rows sum to 1; None unless `kind` is "mixed"."""


def choose(
    distribution_DN: NDArray[np.float32],
    policy: str,
    mapping: Literal["implicit", "explicit"] = "implicit",
    *,
    tau: float = TAU_END,
) -> Choice:
    """Apply `policy` (design 4.1) to probabilities of shape (D, N) that sum to 1 over D.

    The N cells are those of the whole image's lattice, row by row, whatever part is asked for: `random` draws by their
    numbers. `tau` is the temperature of `gumbel`, whose noise is 0 at inference; under explicit mapping gumbel is
    straight-through. A bundle without F_theta passes any distribution, such as a uniform one. Raises OptionInvalid
    where mapping or bank cannot follow the policy.
    """
    D, N = distribution_DN.shape
    check_policy(policy, fovs=D, mapping=mapping)
    name, _, argument = policy.partition(":")
    if name in ("mean", "average") or (name == "gumbel" and mapping == "implicit"):
        weights = np.ascontiguousarray(_mixing_weights(name, distribution_DN, tau).T)
        return Choice("mixed", np.argmax(weights, axis=1).astype(np.int8), weights)
    if name == "fixed":
        index = np.full(N, int(argument) - 1, np.int8)
    elif name == "random":
        index = _drawn(int(argument or 0), N, D)
    else:
        index = np.argmax(distribution_DN, axis=0).astype(np.int8)
    return Choice("ensemble" if name == "ensemble" else "single", index, None)


def _mixing_weights(name: str, distribution_DN: NDArray[np.float32], tau: float) -> NDArray[np.float32]:
    if name == "average":
        return np.full_like(distribution_DN, 1 / distribution_DN.shape[0])
    if name == "mean":
        return distribution_DN
    # softmax(log f / tau), as a ratio to the largest so that neither 0 nor a small tau under- or overflows.
    power = (distribution_DN.astype(np.float64) / distribution_DN.max(axis=0)) ** (1 / tau)
    weights: NDArray[np.float32] = (power / power.sum(axis=0)).astype(np.float32)
    return weights


def _drawn(seed: int, N: int, D: int) -> NDArray[np.int8]:
    """One of D for each of N cells, uniform, from a hash of seed and cell number (splitmix64, Steele et al. 2014)."""
    start = _scrambled(np.full(N, seed % 2**64, np.uint64))
    drawn: NDArray[np.int8] = (_scrambled(start + np.arange(N).astype(np.uint64)) % np.uint64(D)).astype(np.int8)
    return drawn


def _scrambled(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Arrays of unsigned integers wrap around silently, which is what the hash wants.
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
