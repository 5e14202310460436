"""F_theta, the low-resolution image, the patches and the explicit mapping agree with the authors' code."""

from typing import Any

import torch
from torch.nn import functional

from model.extract import extract_labels, extract_patches
from model.foveation import FoveationModule, from_authors
from model.geometry import Geometry
from model.mapping import map_parity
from model.resample import bilinear, low_resolution
from raster.geometry import Size
from tests.model.parity import Case, Segmenter, assert_forward, cases, part


def geometry_of(settings: dict[str, Any]) -> Geometry:
    outside = "none" if not settings["fov_padding"] else "mirror" if settings["mirror_padding"] else "zeros"
    geometry = Geometry(
        bank=tuple(settings["patch_bank"]),
        step=settings["fov_map_scale"],
        kind="parity",
        aspect=settings["patch_ap"],
        outside=outside,  # type: ignore[arg-type]
        adjust=settings["adjust_crop_range"],
    )
    evaluating = not settings.get("train", False)
    return geometry.enlarged(settings.get("expand_prediction_rate_patch", 1.0)) if evaluating else geometry


@cases("ftheta")
def test_foveation_module(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    deep = {"": 0, "deep_fov1": 1, "deep_fov2": 2}[settings["deep_fov"]]
    module = FoveationModule(
        arrays["x"].shape[1],
        settings["D"],
        activation=settings["activation"],
        norm=settings["norm"],
        deep_fov=deep,  # type: ignore[arg-type]
        log_probabilities=settings["log_probabilities"],
    )
    module.load_state_dict(from_authors(part(arrays, "theta"), module))
    assert_forward(module.eval()(arrays["x"]).detach(), arrays["out_eval"], "evaluation")
    assert_forward(module.train()(arrays["x"]).detach(), arrays["out_train"], "training")
    after = {name: tensor for name, tensor in module.state_dict().items() if "running" in name}
    references = part(arrays, "after_train")
    assert set(after) <= set(references)
    for name, tensor in after.items():
        assert_forward(tensor, references[name], name)


@cases("lowres")
def test_low_resolution_image(case: Case) -> None:
    arrays = case.arrays()
    assert case.settings["cases"]
    for k, wanted in enumerate(case.settings["cases"]):
        image = arrays["image"][:, :, : wanted["H"], : wanted["W"]]
        low = low_resolution(image, wanted["fov_map_scale"], wanted["patch_ap"], antialias=False)
        assert_forward(low, arrays[f"lr_{k}"], str(wanted))


@cases("patches")
def test_patches_and_labels(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    geometry = geometry_of(settings)
    image, label = arrays["image"], arrays["label"]
    size = Size(image.shape[-1], image.shape[-2])
    stride = settings["segm_downsampling_rate"] if settings["train"] else 1
    for k, (row, column) in enumerate(arrays["locations"].tolist()):
        location = (row, column)
        patches = extract_patches(image, geometry, location)
        if settings["select_scale"] is not None:
            patches = patches[settings["select_scale"], range(len(image))][None]
        assert_forward(patches, arrays["patches"][k], f"patches at {location}")
        labels = extract_labels(label, geometry, location, size, fill=settings["label_pad_value"], stride=stride)
        assert torch.equal(labels, arrays["label_patches"][k]), location


@cases("patches")
def test_coordinates(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    if settings.get("train"):
        assert "patch_coords" not in arrays
        return
    geometry = geometry_of(settings)
    size = Size(arrays["image"].shape[-1], arrays["image"].shape[-2])
    for k, (row, column) in enumerate(arrays["locations"].tolist()):
        windows = geometry.windows(size, (row, column))
        assert [[w.y, w.x, w.height] for w in windows] == arrays["patch_coords"][k, :, :3].tolist()
        score = geometry.score_window(size, (row, column))
        padded_row, padded_column, side, padding_column, padding_row = arrays["label_coords"][k].tolist()
        assert [score.y, score.x, score.height] == [padded_row - padding_row, padded_column - padding_column, side]


@cases("explicit")
def test_explicit_mapping(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    bank, stride = settings["patch_bank"], settings["segm_downsampling_rate"]
    network = Segmenter(part(arrays, "seg"))
    with torch.no_grad():
        logits = network(arrays["x"])
        trained = functional.log_softmax(logits, dim=1)
        evaluated = functional.softmax(bilinear(logits, *arrays["x"].shape[-2:]), dim=1)
    assert_forward(trained, arrays["pred_train"], "log-probabilities")
    assert_forward(evaluated, arrays["pred_eval"], "scores")
    index = arrays["index"].tolist()
    mapped = torch.cat([map_parity(trained[n : n + 1], k, bank, stride=stride) for n, k in enumerate(index)])
    assert_forward(mapped, arrays["mapped_train"], "mapped log-probabilities")
    loss = functional.nll_loss(mapped, arrays["label"], ignore_index=settings["ignore_index"])
    assert_forward(loss, arrays["loss"], "loss")
    mapped = torch.cat([map_parity(evaluated[n : n + 1], k, bank) for n, k in enumerate(index)])
    assert_forward(mapped, arrays["mapped_eval"], "mapped scores")


@cases("policy_random_code")
def test_the_codes_random_baseline_is_not_reproduced(case: Case) -> None:
    """Their draw overwrites the configuration, so that one field of view serves the process; ours is per patch."""
    picks = case.arrays()["picks"].tolist()
    assert len(picks) > 1
    assert len(set(picks)) == 1


def test_the_authors_log_softmax_slip_is_not_reproduced() -> None:
    """Their `deep_fov1` gives probabilities where Gumbel wants their logarithm."""
    module = FoveationModule(3, 2, deep_fov=1, log_probabilities=True)
    assert bool((module(torch.randn(1, 3, 4, 4)) <= 0).all())
