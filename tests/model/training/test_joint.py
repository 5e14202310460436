"""One update of joint training: the gradients of the whole, whatever the chunks, and what each policy forwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE
from model.foveation import FoveationModule
from model.mapping import map_exact
from model.mixing import gumbel_weights
from model.networks.build import build_network
from model.training.config import Joint, TrainConfig
from model.training.devices import Place, synchronised
from model.training.joint import JointLearner, Minibatch, output_stride
from raster.geometry import Region
from tests.model.training.recipes import PATCH, bundle_card, joint_recipe

CPU = Place(torch.device("cpu"))
HALF = Place(torch.device("cpu"), half=torch.float16)
"""Stands for a GPU without bfloat16: the loss is scaled."""
FOVS = [PATCH, 2 * PATCH]


def card_of(**changes: Any) -> BundleCard:
    return BundleCard.model_validate(bundle_card(**changes))


def joint_of(**changes: Any) -> Joint:
    training = joint_recipe(Path(), **changes)["training"]
    return Joint.model_validate(training)


def learner_of(card: BundleCard, joint: Joint, network: nn.Module | None = None, place: Place = CPU) -> JointLearner:
    torch.manual_seed(0)
    nets = nn.ModuleDict({"network": network or build_network(card.network, 2)})
    if card.foveation is not None:
        nets["foveation"] = FoveationModule.from_card(card.foveation, 3, len(card.fovs))
    return JointLearner(nets, card, joint, torch.tensor([1.0, 2.0]), place)


def minibatch(images: int = 2, locations: int = 3, read: int = 2, side: int = PATCH) -> Minibatch:
    random = torch.Generator().manual_seed(1)
    N = images * locations
    labels = torch.randint(0, 2, (N, side, side), generator=random)
    labels[0, : side // 2] = IGNORE
    cells = torch.randint(0, 6, (N, 2), generator=random)
    inset = torch.tensor([[0, 0], [PATCH // 2, PATCH // 2]])[-read:]
    return Minibatch(
        torch.randint(0, 256, (images, 6, 6, 3), generator=random).to(torch.uint8),
        torch.cat([torch.arange(images).repeat_interleave(locations)[:, None], cells], dim=1),
        torch.randint(0, 256, (N, read, PATCH, PATCH, 3), generator=random).to(torch.uint8),
        labels,
        inset.expand(N, -1, -1),
        -torch.empty(N, 2).exponential_(generator=random).log(),
    )


def gradients(learner: JointLearner, batch: Minibatch, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of one update, which then leaves the weights alone."""
    monkeypatch.setattr(learner, "_step", lambda: None)
    learner.learn(batch, 3)
    return {name: p.grad.clone() for name, p in learner.nets.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "mean"},
        {"policy": "mode"},
        {"policy": "mode", "gradient": "st_inv"},
        {"policy": "gumbel"},
        {"policy": "gumbel", "hard": True},
        {"policy": "categorical"},
    ],
    ids=str,
)
def test_chunks_add_up_to_the_gradient_of_the_whole(policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_of()
    whole = gradients(learner_of(card, joint_of(**policy)), minibatch(), monkeypatch)
    parts = gradients(learner_of(card, joint_of(**policy, chunk=4)), minibatch(), monkeypatch)
    assert any(name.startswith("foveation") for name in whole) and whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(parts[name], gradient, rtol=1e-4, atol=1e-6), name


def test_it_is_the_gradient_of_the_mean_loss_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the detour over the leaf: one graph from F_theta to the loss."""
    card, batch = card_of(), minibatch()
    learner = learner_of(card, joint_of(policy="gumbel", tau=0.7))
    found = gradients(learner, batch, monkeypatch)
    learner.nets.zero_grad()
    normalise = lambda pixels: (pixels.movedim(-1, -3).float() / 255 - 0.5) / 0.5  # noqa: E731
    log_f = learner.nets["foveation"](normalise(batch.thumbnails))
    image, row, column = batch.at.unbind(1)
    weights = gumbel_weights(log_f[image, :, row, column], tau=0.7, noise_ND=batch.noise)
    mixed = (normalise(batch.patches) * weights[:, :, None, None, None]).sum(1)
    logits = learner.nets["network"](mixed)
    loss = nn.functional.cross_entropy(
        logits, batch.labels, torch.tensor([1.0, 2.0]), ignore_index=IGNORE, reduction="sum"
    )
    torch.autograd.backward(loss / (batch.labels != IGNORE).sum())
    for name, parameter in learner.nets.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-7), name


class Sees(nn.Module):
    """Keeps what it is shown."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, 2, 1)
        self.shown: list[Tensor] = []

    def forward(self, patches: Tensor) -> Tensor:
        self.shown.append(patches.detach())
        logits: Tensor = self.head(patches)
        return logits


def test_baselines_show_what_they_say() -> None:
    card = card_of(foveation=None, policy="average")
    batch = minibatch()
    both = (batch.patches.movedim(-1, 2).float() / 255 - 0.5) / 0.5
    shown = {}
    for policy in ("average", "random"):
        network = Sees()
        learner_of(card, joint_of(policy=policy), network).learn(batch, 0)
        shown[policy] = network.shown[0]
    assert torch.allclose(shown["average"], both.mean(dim=1), atol=1e-6)
    drawn = batch.noise.argmax(dim=1)
    assert 0 < drawn.sum() < len(drawn)
    assert torch.allclose(shown["random"], both[torch.arange(len(drawn)), drawn], atol=1e-6)


def test_the_scale_is_mixed_as_the_patches_are() -> None:
    network = {**bundle_card()["network"], "scale_channel": True}
    for policy, scale in (("average", 0.5), ("fixed:2", 1.0)):
        sees = Sees(4)
        card = card_of(foveation=None, policy=policy, network=network)
        learner_of(card, joint_of(policy=policy), sees).learn(minibatch(read=1 if policy == "fixed:2" else 2), 0)
        assert torch.allclose(sees.shown[0][:, 3], torch.tensor(scale))


def test_explicit_mapping_reads_the_middle_of_the_output() -> None:
    """fixed:2 with the loss on the smallest window: as if the network had been asked for that alone."""
    card = card_of(foveation=None, mapping="explicit", policy="fixed:2")
    batch = minibatch(read=1)
    learner = learner_of(card, joint_of(policy="fixed:2"))
    patches = (batch.patches[:, 0].movedim(-1, 1).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        output = learner.nets["network"](patches)
    inner = map_exact(output, Region(0, 0, 2 * PATCH, 2 * PATCH), Region(PATCH // 2, PATCH // 2, PATCH, PATCH))
    loss = nn.functional.cross_entropy(
        inner, batch.labels, torch.tensor([1.0, 2.0]), ignore_index=IGNORE, reduction="sum"
    )
    wanted = float(loss / (batch.labels != IGNORE).sum())
    assert learner.learn(batch, 0)["loss"] == pytest.approx(wanted, rel=1e-5)


def test_reinforce_moves_theta_by_the_loss_above_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that equals every patch's loss leaves theta no gradient; the network keeps its own."""
    card = card_of()
    batch = minibatch(images=1, locations=1)
    learner = learner_of(card, joint_of(policy="categorical"))
    report = learner.learn(batch, 0)
    monkeypatch.setattr(learner, "_baseline", None)
    free = gradients(learner, batch, monkeypatch)
    assert free["foveation.squeeze.weight"].abs().max() > 1e-4
    loss = learner.learn(batch, 0)["loss"]
    monkeypatch.setattr(learner, "_baseline", loss)
    bound = gradients(learner, batch, monkeypatch)
    assert bound["foveation.squeeze.weight"].abs().max() < 1e-6
    assert torch.allclose(free["network.head.weight"], bound["network.head.weight"])
    assert report["loss"] > 0


class Coarse(nn.Module):
    """Logits at stride 4 in training alone, like HRNet and UPerNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.conv(patches)
        return logits if self.training else nn.functional.interpolate(logits, scale_factor=4.0, mode="bilinear")


def test_labels_follow_the_stride_of_the_output() -> None:
    network = Coarse().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert output_stride(network, 3, PATCH) == 4
    assert not network.training and all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    card = card_of(foveation=None, policy="fixed:1")
    report = learner_of(card, joint_of(policy="fixed:1"), network).learn(minibatch(read=1, side=PATCH // 4), 0)
    assert 0 < report["loss"] < 5


def test_the_report_speaks_of_f_theta() -> None:
    report = learner_of(card_of(), joint_of(policy="gumbel")).learn(minibatch(), 10)
    assert 0 < report["entropy"] <= 0.6932 and report["tau"] == pytest.approx(0.6065, abs=1e-4)
    assert (
        report["chosen_1"] + report["chosen_2"]
        == pytest.approx(1)
        == pytest.approx(report["mean_1"] + report["mean_2"])
    )
    assert next(iter(report)) == "loss" and report["rate_foveation"] == report["rate_decoder"] < 1e-2


def test_weights_may_be_averaged_over_updates() -> None:
    learner = learner_of(card_of(), joint_of(average=0.5))
    seen = []
    for step in range(3):
        learner.learn(minibatch(), step)
        seen.append(learner.nets["network"].head.weight.detach().clone())
    learner.finish()
    assert torch.allclose(learner.nets["network"].head.weight, (seen[0] + seen[1]) / 4 + seen[2] / 2, atol=1e-6)


def test_a_run_goes_on_on_a_machine_of_another_precision() -> None:
    """Only there is a loss scaled, and only there does its scale have a state."""
    for begun, resumed in ((CPU, HALF), (HALF, CPU), (HALF, HALF)):
        first, second = (learner_of(card_of(), joint_of(), place=place) for place in (begun, resumed))
        first.learn(minibatch(), 0)
        second.load_state_dict(first.state_dict())
        assert torch.equal(second.nets["network"].head.weight, first.nets["network"].head.weight)
        assert second.learn(minibatch(), 1)["loss"] > 0


class Halving:
    """A loss scaler whose scale is another after every step, as that of float16 may be; `overflows` names steps."""

    def __init__(self, overflows: Sequence[int] = ()) -> None:
        self._scale, self._steps, self._overflows = 1024.0, 0, overflows

    def scale(self, loss: Tensor) -> Tensor:
        return loss * (float("inf") if self._steps in self._overflows else self._scale)

    def get_scale(self) -> float:
        return self._scale

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        for gradient in gradients:
            gradient.div_(self._scale)
        if all(gradient.isfinite().all() for gradient in gradients):
            optimiser.step()

    def update(self) -> None:
        self._scale, self._steps = self._scale / 2, self._steps + 1


def test_the_authors_sums_do_not_depend_on_the_scale_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"policy": "gumbel", "update": "parity", "locations": 1, "location_batches": 3}
    joint = joint_of(**changes, optimiser={"name": "sgd", "learning_rate": 0.1})
    plain, scaled, spoilt = (learner_of(card_of(), joint) for _ in range(3))
    monkeypatch.setattr(scaled, "_scaler", Halving())
    monkeypatch.setattr(spoilt, "_scaler", Halving(overflows=[1]))
    for learner in (plain, scaled, spoilt):
        learner.learn(minibatch(), 0)
    for name, value in plain.nets.state_dict().items():
        assert torch.allclose(scaled.nets.state_dict()[name], value, rtol=1e-4, atol=1e-6), name
    last = [learner.nets["foveation"].squeeze.weight for learner in (plain, spoilt)]
    assert bool(last[1].isfinite().all()) and not torch.allclose(*last)
    begun = learner_of(card_of(), joint).nets["foveation"].squeeze.weight
    assert not torch.allclose(last[1], begun)  # the last step was taken


@pytest.mark.parametrize("policy", ["mean", "mode", "categorical"])
def test_the_authors_loop_survives_an_f_theta_that_is_too_sure(policy: str) -> None:
    """There the probabilities themselves are the leaf; one that underflows to 0 must not make its gradient nan."""
    learner = learner_of(card_of(), joint_of(policy=policy, update="parity", locations=3))
    with torch.no_grad():
        learner.nets["foveation"].norm3.bias[0] += 300
    learner.learn(minibatch(), 0)
    assert all(bool(value.isfinite().all()) for value in learner.nets.state_dict().values())


def test_batch_norm_is_synchronised_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's runs on GPUs only, and there is none here: the device is a stand-in."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert isinstance(synchronised(net, Place(torch.device("cpu"), world=2))[1], nn.BatchNorm2d)
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **__: module)
    gpu = Place(torch.device("cuda", 0), world=2)
    assert isinstance(synchronised(net, gpu)[1], nn.SyncBatchNorm)
    alone = nn.Sequential(nn.BatchNorm2d(4))
    assert type(synchronised(alone, Place(torch.device("cuda", 0)))[0]) is nn.BatchNorm2d


def test_a_policy_that_leaves_f_theta_out_says_so(tmp_path: Path) -> None:
    recipe = joint_recipe(tmp_path, policy="average")
    with pytest.raises(ValueError, match=r"set bundle\.foveation to null"):
        TrainConfig.model_validate(recipe)
