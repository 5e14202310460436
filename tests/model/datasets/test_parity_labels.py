"""The authors' vectors of kind `labels`: ids to classes, normalisation, label and image reduction of their loader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter

from model.datasets.classes import IGNORE
from model.datasets.config import Data
from model.datasets.layouts import labelling_of
from model.training.losses import at_stride
from raster.geometry import Region, Size
from raster.resample import resample
from tests.model.parity import Case, cases

EXAMPLES = Path(__file__).parents[3] / "examples/method"
LAYOUTS: dict[str, dict[str, Any]] = {
    "deepglobe_ignore6": {"layout": "deepglobe"},
    "cityscapes": {"layout": "cityscapes"},
    **{
        f"gleason_mapping{grades}": {"layout": "gleason2019", "fused": "fused", "grades": grades}
        for grades in (0, 30, 3, 4, 5, 6)
    },
}
IGNORED = {"deepglobe_ignore6": 6, "cityscapes": 19}
"""The authors' number for what is ignored."""


def classes(name: str) -> np.ndarray[Any, Any]:
    data: Any = TypeAdapter(Data).validate_python({"folder": ".", **LAYOUTS[name]})
    return labelling_of(data).numbers


@cases("labels")
@pytest.mark.parametrize("name", LAYOUTS)
def test_ids_become_the_authors_classes(case: Case, name: str) -> None:
    reference = case.arrays()[name].numpy()
    ids = np.array(case.settings[name]["meaningful_ids"])
    ours = classes(name)[ids]
    assert np.array_equal(np.where(ours == IGNORE, IGNORED.get(name, IGNORE), ours), reference[ids])


@cases("labels")
def test_deepglobes_other_coding_only_numbers_the_ignored_class_first(case: Case) -> None:
    reference = case.arrays()["deepglobe_ignore0"].numpy()
    ours = classes("deepglobe_ignore6")[:7]
    assert np.array_equal(np.where(ours == IGNORE, 0, ours + 1), reference[:7])


@cases("labels")
@pytest.mark.parametrize("name", ["deepglobe", "cityscapes", "gleason2019"])
def test_the_ready_experiments_normalise_as_the_authors(case: Case, name: str) -> None:
    settings = next(value for key, value in case.settings.items() if key.startswith(name.removesuffix("2019")))
    card = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["recipe"]["bundle"]["input"]
    assert (card["mean"], card["std"], card["value_scale"]) == (settings["mean"], settings["std"], 255)


@cases("labels")
def test_labels_and_images_are_reduced_as_the_authors_loader_does(case: Case) -> None:
    arrays = case.arrays()
    assert torch.equal(at_stride(arrays["downsample_in"][None], 4)[0], arrays["downsample4_out"])
    image, reference = arrays["image_resize_in"].numpy(), arrays["image_resize_out"].numpy().astype(int)
    whole = Region(0, 0, image.shape[1], image.shape[0])
    box = (0.0, 0.0, float(whole.width), float(whole.height))
    ours = resample(image, whole, box, Size(reference.shape[1], reference.shape[0])).astype(int)
    assert np.abs(ours - reference).max() <= 1
