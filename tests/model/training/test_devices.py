"""Several processes train what one process would."""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from model.bundle import load_bundle, load_networks
from model.training.devices import placed
from model.training.train import train
from tests.model.training.recipes import joint_recipe, write_pictures, write_yaml

ROOT = Path(__file__).parents[3]
_RANK = """
import sys, torch
from pathlib import Path
import model.training.train as module
found = {}
kept = module.fit_joint
def fit_joint(config, place):
    found.update(rank=place.rank, nets=kept(config, place))
    return found["nets"]
module.fit_joint = fit_joint
module.train(Path(sys.argv[1]))
torch.save(found["nets"].state_dict(), f"{sys.argv[2]}/rank-{found['rank']}.pt")
"""


def column(path: Path) -> list[float]:
    return [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]]


def test_processes_wait_for_what_the_first_one_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL would end them after ten minutes, in which the losses of a large data set are not measured."""
    begun: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **given: begun.update(given))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with placed() as place:
        assert (place.rank, place.world) == (1, 2)
    assert begun["timeout"] >= timedelta(days=1)


@pytest.mark.slow
def test_two_processes_train_what_one_would(tmp_path: Path) -> None:
    """On gloo, with nets without batch norm, whose statistics would be those of half a minibatch."""
    write_pictures(tmp_path)
    entries = joint_recipe(tmp_path, steps=6, chunk=1, policy="gumbel")
    entries["bundle"]["foveation"] |= {"norm": "no_normalise"}
    train(write_yaml(tmp_path / "alone.yaml", entries | {"run": str(tmp_path / "alone")}))
    path = write_yaml(tmp_path / "shared.yaml", entries)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun sets.
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(path), str(tmp_path)],
            cwd=ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    one, other = (torch.load(tmp_path / f"rank-{k}.pt", weights_only=True) for k in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert column(tmp_path / "run/losses.csv") == pytest.approx(column(tmp_path / "alone/losses.csv"), abs=1e-5)
    network, _ = load_networks(load_bundle(tmp_path / "run/bundle"))
    alone, _ = load_networks(load_bundle(tmp_path / "alone/bundle"))
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, alone.state_dict()[name], atol=1e-3), name
