"""Policies at inference: every one by its definition, refusals, and independence of blocks."""

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from model.policy import TAU_END, choose

Mapping = Literal["implicit", "explicit"]
F = np.array([[0.2, 0.5, 0.4], [0.5, 0.5, 0.2], [0.3, 0.0, 0.4]], np.float32)
"""Three fields of view; the second and third cells are ties."""


def distribution(seed: int, D: int = 4, N: int = 50) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).dirichlet(np.ones(D), N).T
    return np.ascontiguousarray(drawn, np.float32)


def test_it_needs_no_torch() -> None:
    code = "import sys, model.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mean_gives_the_distribution_itself() -> None:
    choice = choose(F, "mean")
    assert choice.kind == "mixed"
    assert choice.weights is not None
    assert choice.weights.dtype == np.float32
    assert np.array_equal(choice.weights, F.T)
    assert choice.index.tolist() == [1, 0, 0]


@pytest.mark.parametrize("mapping", ["implicit", "explicit"])
def test_mode_takes_the_lowest_of_a_tie(mapping: Mapping) -> None:
    choice = choose(F, "mode", mapping)
    assert (choice.kind, choice.weights) == ("single", None)
    assert choice.index.dtype == np.int8
    assert choice.index.tolist() == [1, 0, 0]


@pytest.mark.parametrize("tau", [TAU_END, 1.0, 0.1, 0.01])
def test_soft_gumbel_without_noise_is_a_sharpened_softmax(tau: float) -> None:
    f = distribution(1)
    choice = choose(f, "gumbel", tau=tau)
    logits = np.log(f.astype(np.float64)) / tau
    expected = np.exp(logits - logits.max(axis=0))
    assert choice.weights is not None
    assert np.allclose(choice.weights, (expected / expected.sum(axis=0)).T, atol=1e-6)


def test_soft_gumbel_takes_probabilities_of_zero() -> None:
    choice = choose(np.array([[1.0], [0.0]], np.float32), "gumbel", tau=0.1)
    assert choice.weights is not None
    assert choice.weights.tolist() == [[1.0, 0.0]]


def test_gumbel_is_straight_through_under_explicit_mapping() -> None:
    choice = choose(F, "gumbel", "explicit")
    assert choice.kind == "single"
    assert np.array_equal(choice.index, choose(F, "mode", "explicit").index)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fixed_counts_from_one(k: int) -> None:
    choice = choose(F, f"fixed:{k}", "explicit")
    assert (choice.kind, choice.index.tolist()) == ("single", [k - 1] * 3)


def test_average_weighs_all_alike() -> None:
    weights = choose(F, "average").weights
    assert weights is not None
    assert np.allclose(weights, 1 / 3)


@pytest.mark.parametrize("mapping", ["implicit", "explicit"])
def test_ensemble_sees_all_and_names_the_likeliest(mapping: Mapping) -> None:
    choice = choose(F, "ensemble", mapping)
    assert (choice.kind, choice.weights, choice.index.tolist()) == ("ensemble", None, [1, 0, 0])


def test_random_is_uniform_and_follows_its_seed() -> None:
    f = np.full((3, 30_000), 1 / 3, np.float32)
    draws = [choose(f, policy).index for policy in ("random", "random:0", "random:1")]
    assert np.array_equal(draws[0], draws[1])
    for draw in draws:
        shares = np.bincount(draw, minlength=3) / draw.size
        assert np.all(np.abs(shares - 1 / 3) < 0.015), "4.5 standard deviations"
    assert abs(float(np.mean(draws[1] == draws[2])) - 1 / 3) < 0.015
    assert abs(float(np.mean(draws[1][1:] == draws[1][:-1])) - 1 / 3) < 0.015


@pytest.mark.parametrize("policy", ["mean", "average"])
def test_mixing_is_refused_under_explicit_mapping(policy: str) -> None:
    with pytest.raises(OptionInvalid, match=policy) as caught:
        choose(F, policy, "explicit")
    for possible in ("mode", "gumbel", "fixed:3", "random", "ensemble"):
        assert possible in caught.value.hint
    assert policy not in caught.value.hint


@pytest.mark.parametrize(
    "policy", ["fixed:4", "fixed:0", "fixed:" + "9" * 5000, "random:" + "9" * 40, "best", "", "Mean"]
)
def test_what_is_no_policy_of_this_bank_is_refused(policy: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        choose(F, policy)
    assert "fixed:3" in caught.value.hint
    assert len(caught.value.message) < 200


@given(
    seed=st.integers(0, 1000),
    D=st.integers(1, 16),
    policy=st.sampled_from(["mean", "mode", "gumbel", "average", "random:7", "ensemble", "fixed:1"]),
)
def test_a_choice_is_well_formed(seed: int, D: int, policy: str) -> None:
    choice = choose(distribution(seed, D, 9), policy)
    assert choice.index.shape == (9,)
    assert np.all((choice.index >= 0) & (choice.index < D))
    assert (choice.weights is not None) == (choice.kind == "mixed")
    if choice.weights is not None:
        assert choice.weights.shape == (9, D)
        assert np.allclose(choice.weights.sum(axis=1), 1, atol=1e-5)
        assert np.array_equal(choice.weights.argmax(axis=1), choice.index)
