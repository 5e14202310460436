"""Whole images in memory: sums, votes, policies, and what may not be left uncovered."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.errors import OptionInvalid
from model.aggregate import infer, policy_weights
from model.extract import extract_patches
from model.foveation import FoveationModule
from model.geometry import Geometry
from model.networks.small import Fcn
from raster.geometry import Size


class Constant(nn.Module):
    """Logits that do not depend on the patch."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, patches: Tensor) -> Tensor:
        return self.logits[None, :, None, None].expand(len(patches), -1, *patches.shape[-2:])


class Ramp(nn.Module):
    """The patch itself, and its opposite: scores follow the image's own values."""

    def forward(self, patches: Tensor) -> Tensor:
        return torch.cat([patches, -patches], dim=1)


@pytest.fixture(scope="module")
def networks() -> tuple[FoveationModule, Fcn]:
    torch.manual_seed(0)
    return FoveationModule(3, 3).eval(), Fcn(3, 4).eval()


IMAGE = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))
GEOMETRY = Geometry((10, 15, 24), 8)


@settings(max_examples=25)
@given(width=st.integers(1, 45), height=st.integers(1, 45), coarse=st.sampled_from([0, 3, 5, 7]))
def test_a_constant_network_gives_its_constant_everywhere(width: int, height: int, coarse: int) -> None:
    foveation = FoveationModule(1, 2).eval()
    geometry = Geometry((7, 12), 4)
    wanted = torch.tensor([0.2, 0.5, 0.3])
    result = infer(
        torch.zeros(1, height, width),
        foveation,
        Constant(*wanted.log().tolist()),
        geometry,
        policy_weights("mean", 2),
        coarse_step=coarse,
        batch=128,
    )
    assert int(result.votes.min()) >= 1
    assert torch.allclose(result.scores / result.votes, wanted[:, None, None].expand(3, height, width), atol=1e-5)
    assert torch.all(result.mask == 1)


@pytest.mark.parametrize("policy", ["mean", "mode", "gumbel", "random:3", "fixed:2", "ensemble", "average"])
def test_batches_do_not_change_the_result(networks: tuple[FoveationModule, Fcn], policy: str) -> None:
    rules = policy_weights(policy, 3)
    one, many = (infer(IMAGE, *networks, GEOMETRY, rules, batch=batch).scores for batch in (1, 16))
    assert torch.allclose(one, many, atol=1e-4)


def test_ensemble_is_the_mean_of_its_members(networks: tuple[FoveationModule, Fcn]) -> None:
    members = [infer(IMAGE, *networks, GEOMETRY, policy_weights(f"fixed:{k}", 3)).scores for k in (1, 2, 3)]
    together = infer(IMAGE, *networks, GEOMETRY, policy_weights("ensemble", 3)).scores
    assert torch.allclose(together, torch.stack(members).mean(dim=0), atol=1e-4)


def test_scores_and_votes_are_plain_sums(networks: tuple[FoveationModule, Fcn]) -> None:
    result = infer(IMAGE, *networks, GEOMETRY, policy_weights("fixed:3", 3), coarse_step=10)
    size = Size(70, 50)
    grid = GEOMETRY.stepping(10)
    scores, votes = torch.zeros(4, 50, 70), torch.zeros(50, 70)
    with torch.inference_mode():
        for row in range(5):
            for column in range(7):
                output = networks[1](extract_patches(IMAGE[None], grid, (row, column))[2])[0].softmax(dim=0)
                window = grid.score_window(size, (row, column))
                for y in range(max(0, window.y), min(50, window.y1)):
                    for x in range(max(0, window.x), min(70, window.x1)):
                        scores[:, y, x] += output[:, y - window.y, x - window.x]
                        votes[y, x] += 1
    assert torch.allclose(result.scores, scores, atol=1e-4)
    assert torch.equal(result.votes, votes.int())


def test_the_surest_window_wins_with_max_score(networks: tuple[FoveationModule, Fcn]) -> None:
    rules = policy_weights("mode", 3)
    kept = infer(IMAGE, *networks, GEOMETRY, rules, max_score=True)
    assert torch.allclose(kept.scores.sum(dim=0), torch.ones(50, 70), atol=1e-5)
    summed = infer(IMAGE, *networks, GEOMETRY, rules)
    assert torch.all(kept.scores.amax(dim=0) >= (summed.scores / summed.votes).amax(dim=0) - 1e-5)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_explicit_mapping_puts_what_was_seen_where_it_lies(index: int) -> None:
    """A network that copies its input marks each place with the image's own value, whichever field of view it saw."""
    slope = torch.linspace(-1, 1, 70).expand(1, 50, 70)
    geometry = Geometry((10, 20, 30), 8, outside="mirror")
    foveation = FoveationModule(1, 3).eval()
    rules = policy_weights(f"fixed:{index}", 3, "explicit")
    result = infer(slope.contiguous(), foveation, Ramp(), geometry, rules, explicit=True)
    shares = result.scores[0] / result.votes
    inner = (slice(12, 38), slice(12, 58))
    assert torch.allclose(shares[inner], torch.sigmoid(2 * slope[0])[inner], atol=0.01)
    if index > 1:
        implicit = infer(slope.contiguous(), foveation, Ramp(), geometry, rules)
        assert not torch.allclose((implicit.scores[0] / implicit.votes)[inner], shares[inner], atol=0.01)


def test_center_refuses_holes_and_parity_leaves_them(networks: tuple[FoveationModule, Fcn]) -> None:
    rules = policy_weights("mean", 3)
    with pytest.raises(OptionInvalid, match="cannot cover"):
        infer(IMAGE, *networks, GEOMETRY, rules, coarse_step=20)
    parity = Geometry((10, 15, 24), 8, "parity")
    result = infer(IMAGE, *networks, parity, rules, coarse_step=20)
    assert torch.any(result.votes == 0)
    assert torch.all(result.mask[result.votes == 0] == 0)


def test_policies_that_cannot_be_followed_are_refused() -> None:
    with pytest.raises(OptionInvalid, match="fixed:4"):
        policy_weights("fixed:4", 3)
    with pytest.raises(OptionInvalid, match="mean"):
        policy_weights("mean", 3, "explicit")


class Plane(nn.Module):
    """The last channel, and 0."""

    def forward(self, patches: Tensor) -> Tensor:
        return torch.cat([patches[:, -1:], torch.zeros_like(patches[:, -1:])], dim=1)


@pytest.mark.parametrize(("policy", "scale"), [("fixed:1", 0.0), ("fixed:3", 1.2630344), ("average", 0.6159990)])
def test_the_scale_channel_is_the_mixed_logarithm(policy: str, scale: float) -> None:
    foveation = FoveationModule(3, 3).eval()
    result = infer(IMAGE, foveation, Plane(), GEOMETRY, policy_weights(policy, 3), scale_channel=True)
    assert torch.allclose((result.scores / result.votes)[0], torch.tensor(scale).sigmoid(), atol=1e-5)


def test_the_temperature_reaches_gumbel() -> None:
    cold, mode = (policy_weights(policy, 3, tau=0.001)[0] for policy in ("gumbel", "mode"))
    log_f_ND = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]).log()
    assert torch.allclose(cold(log_f_ND), mode(log_f_ND))
    assert not torch.allclose(policy_weights("gumbel", 3, tau=1.0)[0](log_f_ND), mode(log_f_ND), atol=0.1)
