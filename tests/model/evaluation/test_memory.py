"""Kept scores are taken again only for what they are the scores of."""

from pathlib import Path

import numpy as np
import torch

from model.bundle import load_bundle
from model.datasets.config import PairsData
from model.datasets.layouts import find_pairs
from model.evaluation.memory import score_key
from model.evaluation.predict import Member, Sampling
from model.evaluation.scores import Wanted
from model.predictor import Predictor
from tests.model.evaluation.scenes import data_entries, make_rgb_bundle, write_pair


def test_the_key_tells_arithmetics_apart(tmp_path: Path) -> None:
    """An evaluation that goes on on another machine must not mix the scores of both."""
    write_pair(tmp_path, "a", np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))
    data = PairsData.model_validate(data_entries(tmp_path))
    predictor = Predictor(load_bundle(make_rgb_bundle(tmp_path / "rgb")), torch.device("cpu"))

    def key() -> str:
        return score_key([Member(predictor, "mean")], find_pairs(data, "test")[0], data, Sampling(), Wanted())

    keys = [key(), key()]
    predictor.half = torch.bfloat16
    keys.append(key())
    predictor.half, predictor.device = None, torch.device("cuda", 0)
    keys.append(key())
    assert keys[0] == keys[1] and len(set(keys)) == 3
