"""Whole images and their measures agree with the authors' code."""

import numpy as np
import torch
from torch import Tensor

from model.aggregate import Weigh, infer
from model.foveation import FoveationModule, from_authors
from model.metrics import ClassCounts, count_classes, foveation_map
from model.mixing import gumbel_weights, mean_weights, mode_weights
from tests.model.parity import Case, Segmenter, assert_forward, assert_mask, cases, part
from tests.model.test_parity_parts import geometry_of


def weigher(case: Case, arrays: dict[str, Tensor]) -> Weigh:
    policy, settings = case.settings["policy"], case.settings
    if policy == "gumbel":
        noise = arrays["noise"][:, :, 0]
        return lambda log_f: gumbel_weights(log_f, tau=settings["tau"], noise_ND=noise)
    if policy == "gumbel_st":
        noise = arrays["noise"][:, :, 0]
        return lambda log_f: gumbel_weights(log_f, tau=settings["tau"], noise_ND=noise, hard=True)
    return mode_weights if policy == "mode" else mean_weights


class Fixed(torch.nn.Module):
    """What the code puts in F_theta's place for `one_hot` and `average`: the same weights at every location."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, low: Tensor) -> Tensor:
        return self.weights[None, :, None, None].expand(len(low), -1, *low.shape[-2:])


def assert_counts(counts: ClassCounts, arrays: dict[str, Tensor], suffix: str = "") -> None:
    assert counts.intersection.tolist() == arrays["intersection" + suffix].tolist()
    assert counts.union.tolist() == arrays["union" + suffix].tolist()
    assert counts.label.tolist() == arrays["area_label" + suffix].tolist()


@cases("inference")
def test_whole_image(case: Case) -> None:
    arrays, settings, group = case.arrays(), case.settings, case.group()
    shared = group.arrays()
    geometry = geometry_of(settings)
    foveation = FoveationModule(
        shared["image"].shape[1],
        group.settings["D"],
        norm=group.settings["norm"],
        activation=group.settings["activation"],
    )
    foveation.load_state_dict(from_authors(part(shared, "theta"), foveation))
    replaced = settings["policy"] in ("one_hot", "average")
    result = infer(
        shared["image"][0],
        Fixed(settings["weights"]) if replaced else foveation.eval(),
        Segmenter(part(shared, "seg")).eval(),
        geometry,
        [weigher(case, arrays)],
        coarse_step=settings["F_Xlr_low_scale"],
        max_score=settings["max_score"],
        interpolate_logs=settings["policy"].startswith("gumbel"),
    )
    assert_forward(result.distribution, arrays["F_out"][0], "F_out")
    assert_forward(result.scores, arrays["scores"][0], "scores")
    assert_mask(result.mask.numpy(), arrays["pred"].numpy(), arrays["scores"][0])
    seen = torch.from_numpy(foveation_map(result.distribution.numpy(), geometry.bank))
    assert_forward(seen, arrays["fov_map"][0], "foveation map")
    # Measured on the reference's own prediction: ours may differ where two classes tie.
    classes, ignore = group.settings["num_class"], settings["ignore_index"]
    counts = count_classes(
        arrays["pred"].numpy(), shared["label"][0].numpy(), classes, ignore, accuracy_over="labelled"
    )
    assert_counts(counts, arrays)
    assert [counts.accuracy, counts.judged] == arrays["pixel_accuracy"].tolist()


@cases("metrics")
def test_metrics(case: Case) -> None:
    arrays, settings = case.arrays(), case.settings
    each = [
        count_classes(
            arrays["pred"][k].numpy(),
            arrays["label"][k].numpy(),
            settings["num_class"],
            settings["ignore_index"],
            accuracy_over="labelled",
        )
        for k in range(settings["images"])
    ]
    for k, counts in enumerate(each):
        assert_counts(counts, arrays, f"_{k}")
        assert [counts.accuracy, counts.judged] == arrays["accuracy"][k].tolist()
    total = sum(each[1:], each[0])
    expected = {name: arrays[name].numpy() for name in ("mean_accuracy", "iou", "miou", "class_recall", "dice")}
    assert np.allclose(total.accuracy, expected["mean_accuracy"], rtol=1e-9)
    assert np.allclose(total.iou, expected["iou"], rtol=1e-9)
    assert np.allclose(total.mean_iou("zero"), expected["miou"], rtol=1e-9)
    assert np.allclose(100 * total.recall, expected["class_recall"], rtol=1e-9)
    assert np.allclose(total.dice, expected["dice"], rtol=1e-9)
