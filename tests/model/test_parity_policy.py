"""Policies, their gradients and the losses that carry them agree with the authors' code."""

import torch
from torch import Tensor
from torch.nn import functional

from model.extract import extract_labels, extract_patches
from model.foveation import AUTHORS_NAMES, FoveationModule, from_authors
from model.mixing import categorical_weights, gumbel_weights, mean_weights, mix, mode_weights
from model.resample import low_resolution
from raster.geometry import Size
from tests.model.parity import Case, Segmenter, assert_forward, assert_gradient, cases, part
from tests.model.test_parity_parts import geometry_of


def weigh(case: Case, arrays: dict[str, Tensor], log_f: Tensor, images: int) -> tuple[Tensor, Tensor | None]:
    """Weights (N, D) of the patches, location-major, and the log-probability of the draws if there were any."""
    policy, settings = case.settings["policy"], case.settings
    if policy == "mean":
        return mean_weights(log_f), None
    if policy in ("mode_st", "mode_st_inv"):
        return mode_weights(log_f, policy.removeprefix("mode_")), None
    if policy in ("gumbel_soft", "gumbel_st"):
        noise = arrays["noise"].permute(2, 0, 1).flatten(0, 1)
        return gumbel_weights(log_f, tau=settings["tau"], noise_ND=noise, hard=policy == "gumbel_st"), None
    if policy in ("one_hot", "average"):
        return torch.tensor(settings["weights"]).expand_as(log_f), None
    assert policy in ("categorical", "categorical_inv")
    index = arrays["selected"].reshape(images, -1).T.flatten()
    return categorical_weights(log_f, index)


@cases("policy")
def test_policy(case: Case) -> None:
    arrays, group = case.arrays(), case.group()
    shared = group.arrays()
    image = shared["image"]
    images, size = len(image), Size(image.shape[-1], image.shape[-2])
    geometry, stride, ignore = (
        geometry_of(group.settings | {"train": True}),
        group.settings["segm_downsampling_rate"],
        group.settings["ignore_index"],
    )
    locations = [(row, column) for row, column in shared["locations"].tolist()]
    locations = locations[: case.settings.get("locations_used", len(locations))]

    gumbel = case.settings["policy"].startswith("gumbel")
    foveation = FoveationModule(
        image.shape[1],
        group.settings["D"],
        norm=group.settings["norm"],
        activation=group.settings["activation"],
        log_probabilities=gumbel,
    )
    foveation.load_state_dict(from_authors(part(shared, "theta"), foveation))
    network = Segmenter(part(shared, "seg"))
    output = foveation.train()(low_resolution(image, geometry.step, geometry.aspect, antialias=False))
    output.retain_grad()
    log_f = output if gumbel else output.log()
    log_f_ND = torch.cat([log_f[:, :, row, column] for row, column in locations])
    patches = torch.cat([extract_patches(image, geometry, location).transpose(0, 1) for location in locations])
    labels = torch.cat(
        [extract_labels(shared["label"], geometry, at, size, fill=ignore, stride=stride) for at in locations]
    )
    weights, log_prob = weigh(case, arrays, log_f_ND, images)
    mixed = mix(patches, weights)
    nll = functional.nll_loss(functional.log_softmax(network(mixed), dim=1), labels, ignore_index=ignore)
    sign = -1 if case.settings["policy"] == "categorical_inv" else 1
    # The code's surrogate: neither factor is detached (section 5 says why that is wrong).
    loss = nll if log_prob is None else sign * log_prob.mean() * nll
    loss.backward()

    # The code puts fixed weights in F_theta's place.
    replaced = case.settings["policy"] in ("one_hot", "average")
    used = torch.tensor(case.settings["weights"])[:, None, None].expand_as(output) if replaced else output.detach()
    assert_forward(used, arrays["F_out"], "F_out")
    assert_forward(mixed.detach(), arrays["mixed"], "mixed")
    assert torch.equal(labels, arrays["label_patches"])
    assert_forward(nll.detach(), arrays["nll"], "nll")
    assert_forward(loss.detach(), arrays["loss"], "loss")
    if log_prob is not None:
        assert_forward(log_prob.detach(), arrays["log_prob"].reshape(images, -1).T.flatten(), "log_prob")
    for name, reference in part(arrays, "grad_seg").items():
        assert_gradient(dict(network.named_parameters())[name].grad, reference, name)
    if "grad_F_out" in arrays:
        assert_gradient(output.grad, arrays["grad_F_out"], "grad_F_out")
        gradients = {name: parameter.grad for name, parameter in foveation.named_parameters()}
        references = part(arrays, "grad_theta")
        assert len(references) == len(gradients)
        for name, reference in references.items():
            layer, leaf = name.split(".")
            assert_gradient(gradients[f"{AUTHORS_NAMES[layer]}.{leaf}"], reference, name)
    else:
        assert output.grad is None
