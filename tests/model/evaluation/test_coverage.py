"""Curves of adaptive coverage: what they say of easy images, controls, thresholds, and the bundle that carries them."""

import json
import os

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from foveate.card import bundle_digest, read_card
from foveate.coverage import checked_coverage
from foveate.errors import OptionInvalid
from foveate.schema import SegmentOptions
from model.bundle import load_bundle
from model.datasets.config import Data
from model.datasets.layouts import find_pairs
from model.device import choose_device
from model.evaluation.coverage import REFINED, nodes_key
from model.evaluation.nodes import Cover, forward_nodes
from model.evaluation.signals import gains, node_confusions, parents
from model.predictor import Predictor
from model.tree import Node
from tests.model.evaluation.scenes import PATCH, data_entries, make_rgb_bundle, opened, write_pair
from tests.model.evaluation.test_run import run

FOVS = [PATCH, 2 * PATCH, 4 * PATCH]
COMMON = {"mapping": "explicit", "policy": "mode", "fovs": FOVS}


@pytest.fixture
def folder(tmp_path):
    """A picture whose left half is fine diagonal stripes and whose right half is one colour; its labels are right."""
    size = 8 * PATCH
    labels = (np.indices((size, size)).sum(axis=0) // 2 % 3).astype(np.uint8)
    labels[:, size // 2 :] = 1
    write_pair(tmp_path, "a", np.eye(3, dtype=np.uint8)[labels] * 255, labels)
    return tmp_path


def entries(folder, **changes):
    make_rgb_bundle(folder / "rgb", **COMMON)
    config = {"bootstrap": {"draws": 20, "block": 64}, "maps": 0, "policies": ["mode"], "coverage": True, **changes}
    return {"bundles": {"rgb": str(folder / "rgb")}, "data": data_entries(folder), "evaluate": config}


@pytest.fixture
def nodes(folder, tmp_path):
    predictor = Predictor(load_bundle(make_rgb_bundle(folder / "rgb", **COMMON)), choose_device("cpu"))
    return forward_nodes(predictor, opened(folder, predictor), 0.25, tmp_path / "nodes", lambda share: None)


def test_a_curve_pays_where_the_image_does_and_is_stored_in_a_bundle(folder):
    bundle = make_rgb_bundle(folder / "shipped", **COMMON)
    before = bundle_digest(bundle)
    found = run(folder, entries(folder), store=bundle)
    points = {(p["coverage"], p["signal"], p["detail"]): p for p in found.scores["coverage"]["rgb"]}
    fixed = {p["signal"]: p for p in found.scores["coverage"]["rgb"] if p["coverage"] == "fixed"}
    assert fixed["1"]["miou"] > 0.99 > fixed["4"]["miou"]
    assert (fixed["1"]["share"], fixed["1"]["to_best_fixed"]) == (1, 0)
    half = points["planned", "gradient", 0.5]
    assert half["share"] <= 0.5
    assert half["miou"] >= points["planned", "random", 0.5]["miou"]
    assert points["refined", REFINED, 1.0]["share"] <= 1
    assert points["refined", "oracle", 0.5]["miou"] >= points["refined", "random", 0.5]["miou"]
    assert points["mean", "3", None]["share"] > 1
    card = read_card(bundle)
    assert bundle_digest(bundle) != before
    assert card.coverage.default == "dense"
    assert {point.coverage for point in card.coverage.curve} == {"planned", "refined"}
    chosen = checked_coverage(card, SegmentOptions(coverage="refined", detail=0.5))
    assert chosen.threshold == pytest.approx(points["refined", REFINED, 0.5]["threshold"], abs=1e-5)
    assert (folder / "out" / "coverage-rgb.csv").is_file()
    assert "Adaptive coverage of rgb" in (folder / "out" / "report.md").read_text()
    assert json.loads((folder / "out" / "scores.json").read_text())["coverage"] == found.scores["coverage"]


def test_nodes_are_forwarded_again_only_for_what_they_depend_on(folder):
    data = TypeAdapter(Data).validate_python(data_entries(folder))
    [pair] = find_pairs(data, "test")

    def key(name, overlap=0.25, data=data, half=None, **changes):
        bundle = make_rgb_bundle(folder / name, **{**COMMON, **changes})
        predictor = Predictor(load_bundle(bundle), choose_device("cpu"))
        predictor.half = half
        return nodes_key(predictor, pair, data, overlap)

    first = key("one")
    assert key("without-f-theta", foveation=None, policy="fixed:1") == first
    others = [key("surer", gain=30.0), key("wider", fovs=[*FOVS, 8 * PATCH]), key("one", overlap=0.5)]
    others.append(key("one", data=data.model_copy(update={"bands": [3, 2, 1]})))
    others.append(key("one", half=torch.bfloat16))  # as on a GPU
    image = pair.images[0]
    os.utime(image, ns=(1, 1))
    others.append(key("one"))
    assert len({first, *others}) == 7


def test_a_cover_of_the_finest_leaves_forwards_them_once_each(nodes):
    cover = Cover(nodes)
    strips = list(cover.leaves(np.zeros(nodes.tree.grid(0), np.int8)))
    assert cover.forwards == np.prod(nodes.tree.grid(0))
    whole = np.concatenate([strip.scores for strip in strips], axis=1)
    assert whole.shape == (3, *nodes.tree.size.shape)
    assert np.allclose(whole.sum(axis=0), 1, atol=2e-3)


def test_the_oracle_wins_what_the_finer_prediction_gets_right(folder, nodes):
    labels = np.asarray(_labels(nodes))
    confusions = node_confusions(nodes, labels)
    total = confusions[0][..., 0, :, :].sum((0, 1))
    assert total.sum() == labels.size
    children = gains(confusions, total)
    # Stripes are lost by coarser pixels; one colour is not.
    assert children[0][:, 0].min() > 0
    assert children[0][:, -1].max() == pytest.approx(0, abs=1e-9)
    above = parents(nodes.tree, children)
    under = [children[0][child.row, child.column] for child in nodes.tree.children(Node(1, 0, 0))]
    assert above[1][0, 0] == pytest.approx(np.mean(under))


def _labels(nodes):
    size = nodes.tree.size.width
    labels = (np.indices((size, size)).sum(axis=0) // 2 % 3).astype(np.uint8)
    labels[:, size // 2 :] = 1
    return labels


def test_networks_without_a_tree_and_bundles_of_another_kind_are_refused(folder):
    flat = entries(folder)
    make_rgb_bundle(folder / "rgb", mapping="implicit", policy="mean", fovs=FOVS)
    flat["evaluate"]["policies"] = None
    with pytest.raises(OptionInvalid, match="nest"):
        run(folder, flat)
    other = make_rgb_bundle(folder / "other", mapping="explicit", policy="mode")
    with pytest.raises(OptionInvalid, match="fields of view"):
        run(folder, entries(folder), store=other)
    with pytest.raises(OptionInvalid, match="one network"):
        run(folder, entries(folder, coverage=False), store=other)
    with pytest.raises(OptionInvalid, match="none is to be measured"):
        run(folder, entries(folder), store=other, coverage=False)


def test_a_curve_that_the_file_asks_for_can_be_left_out(folder):
    found = run(folder, entries(folder), coverage=False)
    assert list(found.scores["models"]) == ["mode"]
    assert not found.scores["coverage"]
    assert not (folder / "out" / "coverage-rgb.csv").exists()
