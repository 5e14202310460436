"""Joint training takes the updates of the authors' code: its loop, its accumulated gradients, schedules and losses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE
from model.extract import extract_labels, extract_patches
from model.foveation import AUTHORS_NAMES, FoveationModule, from_authors
from model.resample import low_resolution
from model.training.config import Joint
from model.training.devices import Place
from model.training.joint import JointLearner, Minibatch, authors_iteration
from model.training.losses import patch_losses
from model.training.optimise import falling, temperature
from raster.geometry import Size
from tests.model.parity import Case, Segmenter, assert_forward, assert_gradient, cases, part
from tests.model.test_parity_parts import geometry_of
from tests.model.training.recipes import bundle_card


def card_of(settings: dict[str, Any]) -> BundleCard:
    """A card of the vectors' bank whose normalisation is the identity: the vectors' images are normalised already."""
    bank = settings["patch_bank"]
    card = bundle_card(patch_size=bank[0], fovs=bank, mapping="implicit", policy="mean")
    exact = card["input"] | {"value_scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "dtype": "float32"}
    return BundleCard.model_validate(card | {"input": exact})


def joint_of(case: Case, batches: int, locations: int, **changes: Any) -> Joint:
    settings = case.settings
    return Joint.model_validate(
        {
            "method": "joint",
            "policy": settings["policy"].removesuffix("_soft"),
            "geometry": "parity",
            "update": "parity",
            "zero_step_gradient": settings["zero_step_grad"],
            "images": 2,
            "locations": locations,
            "location_batches": batches,
            "steps": 1,
            **changes,
        }
    )


def learner_of(case: Case, joint: Joint) -> JointLearner:
    group = case.group().settings
    arrays = case.group().arrays()
    foveation = FoveationModule(3, group["D"], norm=group["norm"], activation=group["activation"])
    foveation.load_state_dict(from_authors(part(arrays, "theta"), foveation))
    nets = nn.ModuleDict({"network": Segmenter(part(arrays, "seg")), "foveation": foveation})
    return JointLearner(nets, card_of(group), joint, torch.ones(group["num_class"]), Place(torch.device("cpu")))


def minibatch_of(case: Case, locations: list[tuple[int, int]], noise: Tensor | None = None) -> Minibatch:
    """The vectors' images with `locations` (row, column), image by image as our loader gives them.

    `noise` (location, image, D).
    """
    group, shared = case.group().settings, case.group().arrays()
    geometry = geometry_of(group | {"train": True})
    image, ignored = shared["image"], group["ignore_index"]
    size = Size(image.shape[-1], image.shape[-2])
    patches = torch.stack([extract_patches(image, geometry, at) for at in locations])  # location, D, image, C, P, P
    labels = torch.stack([extract_labels(shared["label"], geometry, at, size, fill=ignored) for at in locations])
    at = [(n, row, column) for n in range(len(image)) for row, column in locations]
    N, D = len(at), group["D"]
    return Minibatch(
        low_resolution(image, geometry.step, antialias=False).movedim(1, -1),
        torch.tensor(at),
        patches.permute(2, 0, 1, 4, 5, 3).flatten(0, 1),
        labels.where(labels != ignored, IGNORE).transpose(0, 1).flatten(0, 1),
        torch.zeros(N, D, 2, dtype=torch.long),
        torch.zeros(N, D) if noise is None else noise.transpose(0, 1).flatten(0, 1),
    )


@cases("train_loop")
def test_the_loop_of_one_image_batch(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    B, S = settings["mini_batch"], settings["location_step"]
    K = S // B
    joint = joint_of(
        case,
        K,
        B,
        steps=settings["epoch_iters"] * settings["num_epoch"],
        tau="annealed",
        optimiser={
            "name": settings["optimizer"],
            "learning_rate": settings["lr"],
            "weight_decay": settings["weight_decay"],
            "poly_power": settings["lr_power"],
        },
    )
    learner = learner_of(case, joint)
    locations = [(row, column) for row, column in arrays["location_order"].tolist()]
    noise = None
    if "noise" in arrays:  # batch, image, FoV, location
        noise = arrays["noise"].permute(0, 3, 1, 2).flatten(0, 1)
    update = (settings["epoch"] - 1) * settings["epoch_iters"]
    report = learner.learn(minibatch_of(case, locations, noise), update)

    iterations = [authors_iteration(update, k, B, K, joint.steps) for k in range(K)]
    assert [t for t, _ in iterations] == arrays["cur_iter"].tolist()
    rates = [settings["lr"] * falling(t, T, settings["lr_power"]) for t, T in iterations]
    assert rates == pytest.approx(arrays["lr"].tolist(), rel=1e-12)
    assert report["rate_decoder"] == rates[-1]
    assert report["loss"] == pytest.approx(float(arrays["mean_loss"]), abs=2e-5)
    if noise is not None:
        assert report["tau"] == pytest.approx(settings["tau_final"], rel=1e-12)
    limit = 2e-5 if settings["optimizer"] == "sgd" else 2e-4
    theta, seg = learner.nets["foveation"].state_dict(), learner.nets["network"].state_dict()
    for name, reference in part(arrays, "theta_after").items():
        layer, leaf = name.split(".")
        assert float((theta[f"{AUTHORS_NAMES[layer]}.{leaf}"] - reference).abs().max()) <= limit, name
    for name, reference in part(arrays, "seg_after").items():
        assert float((seg[name] - reference).abs().max()) <= limit, name


@cases("accumulate")
def test_gradients_accumulate_over_location_batches(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = case.arrays()
    batches = arrays["locations"].tolist()
    learner = learner_of(case, joint_of(case, len(batches), len(batches[0])))
    found: list[dict[str, Tensor]] = []
    losses: list[float] = []

    def keep() -> None:
        gradients = learner.nets["foveation"].named_parameters()
        found.append({name: value.grad.clone() for name, value in gradients if value.grad is not None})

    accumulate = learner.accumulate
    monkeypatch.setattr(learner, "_step", keep)
    monkeypatch.setattr(learner, "accumulate", lambda *given: losses.append(accumulate(*given)) or losses[-1])
    learner.learn(minibatch_of(case, [tuple(at) for batch in batches for at in batch]), 0)
    assert len(found) == len(losses) == len(batches)
    for k, gradients in enumerate(found):
        assert losses[k] == pytest.approx(float(arrays[f"loss_{k}"]), abs=1e-5)
        for name, reference in part(arrays, f"grad_theta_{k}").items():
            layer, leaf = name.split(".")
            assert_gradient(gradients[f"{AUTHORS_NAMES[layer]}.{leaf}"], reference, f"{k} {name}")


@cases("schedule")
def test_schedules(case: Case) -> None:
    arrays = case.arrays()
    for k, run in enumerate(case.settings["runs"]):
        T = run["max_iter"]
        for n, t in enumerate(arrays[f"iter_{k}"].tolist()):
            rate = run["base_lr"] * falling(t, T, run["power"])
            assert [rate] * 3 == pytest.approx(arrays[f"lr_{k}"][n].tolist(), rel=1e-12)
            assert temperature(t, T, 1.0) == pytest.approx(float(arrays[f"tau_{k}"][n]), rel=1e-12)
            assert temperature(t, T, 5.0) == pytest.approx(float(arrays[f"tau_rate5_{k}"][n]), rel=1e-12)


@cases("losses")
@pytest.mark.parametrize(
    ("name", "weighted"),
    [("nll", False), ("ohem_weighted", True), ("ohem_weighted_k20", True), ("ce_on_logprob", False)],
)
def test_losses(case: Case, name: str, weighted: bool) -> None:
    arrays = case.arrays()
    log_prob = arrays["log_prob"].clone().requires_grad_()
    labels = arrays["label"].where(arrays["label"] != case.settings["ignore_index"], IGNORE)
    weights = arrays["class_weights"] if weighted else torch.ones(log_prob.shape[1])
    # All but the first are cross-entropies in the code: they take a softmax of what is log-probabilities already.
    given = log_prob if name == "nll" else log_prob.log_softmax(dim=1)
    sums, counts = patch_losses(given, labels, weights)
    loss = sums.sum() / counts.sum()
    torch.autograd.backward(loss)
    assert_forward(loss.detach(), arrays[f"loss_{name}"])
    assert_gradient(log_prob.grad, arrays[f"grad_{name}"])
