"""Training from end to end on invented pictures: it learns, goes on where it stopped, and writes sound bundles."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.cli import run
from foveate.errors import OptionInvalid
from model.bundle import load_bundle, load_networks, verify_bundle
from model.training.config import TrainConfig
from model.training.fit_foveation import fit_foveation, foveation_summary
from model.training.measure import Measured
from model.training.train import train
from tests.model.training.recipes import joint_recipe, staged_recipe, write_pictures, write_yaml

ROOT = Path(__file__).parents[3]
_IMAGES = torch.zeros(200, dtype=torch.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def losses(folder: Path, name: str = "run") -> list[str]:
    return (folder / name / "losses.csv").read_text().splitlines()


def test_joint_training_learns_and_leaves_a_whole_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "model")
    path = write_yaml(folder / "recipe.yaml", joint_recipe(folder, steps=40, map_every=20))
    [trained] = train(path)
    found = losses(folder)
    assert found[0].startswith("step,loss,") and len(found) == 41
    assert float(found[-1].split(",")[1]) < 0.5  # 0.69 is guessing
    assert re.search(r"step 40 of 40, loss \d\.\d+, 0 min 00 s left", caplog.text)
    assert {entry.name for entry in (folder / "run/maps").iterdir()} == {
        f"{k}-{step:07d}.png" for k in (1, 2) for step in (20, 40)
    }
    assert any((folder / "run/logs").iterdir())
    assert verify_bundle(folder / "run/bundle").foveation_parameters > 0
    assert trained.bundle.card.provenance["command"] == f"foveate train {path}"
    assert (folder / "run/bundle/training.yaml").read_text() == path.read_text()
    _, foveation = load_networks(trained.bundle)
    assert foveation is not None and not foveation.training and not foveation.log_probabilities


def test_loader_processes_change_nothing(folder: Path) -> None:
    """The same losses to the last digit with one process ahead of the network, and with none."""
    entries = joint_recipe(folder, steps=5, policy="gumbel", class_centred=0.5)
    train(write_yaml(folder / "a.yaml", entries))
    train(write_yaml(folder / "b.yaml", entries | {"loaders": 1, "run": str(folder / "other")}))
    assert len(losses(folder)) == 6 and losses(folder) == losses(folder, "other")


def test_another_seed_gives_other_losses(folder: Path) -> None:
    entries = joint_recipe(folder, steps=3)
    train(write_yaml(folder / "a.yaml", entries))
    train(write_yaml(folder / "b.yaml", entries | {"seed": 4, "run": str(folder / "other")}))
    assert losses(folder)[1] != losses(folder, "other")[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_losses(folder: Path) -> None:
    """Killed without warning at some moment after its first checkpoint; the same command ends as if nothing was."""
    entries = joint_recipe(folder, steps=60, average=0.9) | {"checkpoint_minutes": 1e-6, "loaders": 1}
    train(write_yaml(folder / "unbroken.yaml", entries | {"run": str(folder / "unbroken")}))
    path = write_yaml(folder / "recipe.yaml", entries)
    command = [sys.executable, "-c", "import sys; from foveate.cli import run; sys.exit(run(sys.argv[1:]))"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "train", str(path)], cwd=ROOT, env=quiet, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not (folder / "run/checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2 * torch.rand(1).item())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "run/bundle").exists()
    step = torch.load(folder / "run/checkpoint.pt", weights_only=True)["step"]
    assert 0 < step <= 60
    train(path)
    assert losses(folder) == losses(folder, "unbroken")
    ours, theirs = (
        load_networks(load_bundle(folder / name / "bundle"))[0].state_dict() for name in ("run", "unbroken")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_of_another_recipe_is_refused_by_field(folder: Path) -> None:
    entries = joint_recipe(folder, steps=2)
    train(write_yaml(folder / "recipe.yaml", entries))
    entries["training"]["optimiser"]["learning_rate"] = 3e-2
    path = write_yaml(folder / "recipe.yaml", entries | {"seed": 4, "threads": 2})
    with pytest.raises(OptionInvalid, match=r"differs in seed, training\.optimiser\.learning_rate"):
        train(path)


_HOLDS_A_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_trained_by_one_process_at_a_time(folder: Path) -> None:
    path = write_yaml(folder / "recipe.yaml", joint_recipe(folder, steps=2))
    (folder / "run").mkdir()
    command = [sys.executable, "-c", _HOLDS_A_LOCK, str(folder / "run" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(OptionInvalid, match="another process is training in"):
            train(path)
        other.kill()
    train(path)


def test_an_experiment_trains_what_is_asked_for_and_passes_over_what_is_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = joint_recipe(folder, steps=2)
    del entries["run"]
    baseline = {"bundle": {"foveation": None, "policy": "fixed:2"}, "training": {"policy": "fixed:2"}}
    experiment = {
        "name": "two", "recipe": entries, "runs": str(folder / "runs"),
        "folds": {"a": {}, "b": {"seed": 5}}, "models": {"mean": {}, "fixed-2": baseline},
    }  # fmt: skip
    path = write_yaml(folder / "experiment.yaml", experiment)
    assert run(["train", str(path), "--only", "a/mean", "--only", "b/fixed-2", "--json"]) == 0
    assert [found["run"] for found in json.loads(capsys.readouterr().out)] == ["a/mean", "b/fixed-2"]
    assert {str(p.relative_to(folder / "runs")) for p in folder.glob("runs/*/*/bundle")} == {
        "a/mean/bundle", "b/fixed-2/bundle",
    }  # fmt: skip
    written = (folder / "runs/a/mean/bundle/bundle.json").stat().st_mtime_ns
    assert run(["train", str(path)]) == 0
    assert len(list(folder.glob("runs/*/*/bundle"))) == 4
    assert (folder / "runs/a/mean/bundle/bundle.json").stat().st_mtime_ns == written
    assert load_bundle(folder / "runs/b/fixed-2/bundle").card.foveation is None
    assert run(["train", str(path), "--only", "c"]) == 2
    assert "a/mean, a/fixed-2, b/mean, b/fixed-2" in capsys.readouterr().err


def test_staged_training_publishes_a_bundle_with_its_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_yaml(folder / "recipe.yaml", staged_recipe(folder))
    assert run(["train", str(path), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    scores = found["scores"]["policies"]
    assert scores["fixed:1"]["miou"] > 0.8 and set(scores) == {"mode", "fixed:1", "fixed:2"}
    assert verify_bundle(folder / "bundle").foveation_parameters > 0
    card = load_bundle(folder / "bundle").card
    assert card.provenance["scores"]["policies"] == scores
    assert len(card.provenance["foveation_training"]["fixed"]) == 2
    assert (folder / "bundle/training.yaml").read_text() == path.read_text()
    readme = folder / "bundle/README.md"
    assert f"{100 * scores['mode']['miou']:.1f}" in readme.read_text()

    readme.write_text(readme.read_text() + "\nA sentence by hand.\n")
    weights = (folder / "bundle/weights.safetensors").read_bytes()
    (folder / "bundle/weights.safetensors").write_bytes(b"spoilt")
    assert run(["train", str(path)]) == 0
    assert (folder / "bundle/weights.safetensors").read_bytes() == weights
    assert readme.read_text().endswith("A sentence by hand.\n") and readme.read_text().count("| mode |") == 1


@pytest.mark.parametrize("data", [{"holdout": None}, {"holdout": {"kind": "image", "part": 9}}])
def test_without_places_for_f_theta_nothing_is_trained(folder: Path, data: dict[str, Any]) -> None:
    entries = staged_recipe(folder)
    entries["data"] |= data
    with pytest.raises(OptionInvalid, match="nothing is held out"):
        train(write_yaml(folder / "recipe.yaml", entries))
    assert not (folder / "run/losses.csv").exists()


def test_shares_are_rounded_as_people_round_them(folder: Path) -> None:
    entries = staged_recipe(folder)
    entries["training"]["network"] |= {"steps": 1, "fov_shares": [0.3333333, 0.6666667 - 1e-7]}
    assert train(write_yaml(folder / "recipe.yaml", entries))[0].scores


def test_staged_training_without_f_theta(folder: Path) -> None:
    entries = staged_recipe(folder)
    entries["bundle"] |= {"foveation": None, "policy": "fixed:1"}
    entries["training"]["foveation"] = None
    entries["training"]["network"] |= {"steps": 2}
    del entries["output"]
    [trained] = train(write_yaml(folder / "recipe.yaml", entries))
    assert trained.bundle.card.foveation is None and trained.scores == {}


def test_f_theta_learns_to_choose_the_cheaper_field_of_view(folder: Path) -> None:
    """Where the thumbnail is bright the second field of view costs less, elsewhere the first."""
    config = TrainConfig.model_validate(staged_recipe(folder))
    bright = torch.arange(200) % 2 == 1
    level = torch.where(bright, 0.8, -0.8)[:, None, None, None]
    cost = torch.where(bright[:, None], torch.tensor([1.0, 0.2]), torch.tensor([0.3, 0.9]))
    glimpses, inside = level + 0.1 * torch.randn(200, 3, 15, 15), torch.ones(200, 1, 15, 15, dtype=torch.bool)
    measured = Measured(glimpses, inside, cost, torch.zeros(200, 2, 2, 2, dtype=torch.int64), torch.ones(200), _IMAGES)
    module = fit_foveation(measured, config)
    chosen = module(measured.glimpses)[:, :, 7, 7].argmax(dim=1)
    assert torch.equal(chosen, bright.long())


def test_f_theta_learns_to_choose_what_raises_the_mean_iou(folder: Path) -> None:
    """Its losses tell the opposite: the second field of view is less sure everywhere, and more often right where the
    thumbnail is bright."""
    entries = staged_recipe(folder)
    entries["training"]["foveation"]["objective"] = "mean_iou"
    bright = torch.arange(200) % 2 == 1
    level = torch.where(bright, 0.8, -0.8)[:, None, None, None]
    glimpses, inside = level + 0.1 * torch.randn(200, 3, 15, 15), torch.ones(200, 1, 15, 15, dtype=torch.bool)
    right, wrong = torch.tensor([[50, 4], [6, 40]]), torch.tensor([[30, 24], [26, 20]])
    confusions = torch.stack([torch.stack([wrong, right] if wide else [right, wrong]) for wide in bright.tolist()])
    losses = torch.tensor([[1.0, 0.2]]).expand(200, 2)
    measured = Measured(glimpses, inside, losses, confusions, torch.ones(200), _IMAGES)
    module = fit_foveation(measured, TrainConfig.model_validate(entries))
    assert torch.equal(module(measured.glimpses)[:, :, 7, 7].argmax(dim=1), bright.long())
    summary = foveation_summary(module, measured)
    fixed, mode = summary["fixed_miou"], summary["mode_miou"]
    assert isinstance(fixed, list) and isinstance(mode, float) and mode > 0.8 > max(fixed)


def test_a_missing_recipe_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_an_error_in_a_loader_process_arrives_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = joint_recipe(folder, steps=2) | {"loaders": 1}
    entries["data"]["labels"] = entries["data"]["labels"][:1]
    assert run(["train", str(write_yaml(folder / "recipe.yaml", entries))]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err.startswith("error: ")
