"""`foveate models`: what a user brings, from a folder, an archive or a training run."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from foveate.cli import run
from tests.bundles import make_bundle


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FOVEATE_BUNDLES", str(tmp_path / "none"))
    return tmp_path / "data"


def test_a_run_is_exported_and_added(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(tmp_path / "run" / "bundle", name="fresh", licence="Research only")
    (tmp_path / "run" / "losses.csv").write_text("step,loss\n1,0.5\n")
    assert run(["models", "export", str(tmp_path / "run"), "--out", str(tmp_path / "fresh.zip")]) == 0
    assert run(["models", "add", str(tmp_path / "fresh.zip")]) == 0
    assert "licence: Research only" in capsys.readouterr().out
    assert (data / "models" / "fresh" / "bundle.json").is_file()
    assert run(["models", "verify", "fresh"]) == 0
    assert run(["models", "add", str(tmp_path / "run"), "--replace"]) == 0


def test_adding_says_which_models_are_no_longer_the_only_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (("first", "scene"), ("second", "scene"), ("slides", "slide"), ("grey", "any")):
        make_bundle(
            tmp_path / name, name=name, kind=kind, bands=["gray"] if name == "grey" else ["red", "green", "blue"]
        )
    rivals = {}
    for name in ("first", "second", "slides", "grey"):
        assert run(["models", "add", str(tmp_path / name), "--json"]) == 0
        rivals[name] = json.loads(capsys.readouterr().out)["rivals"]
    assert rivals == {"first": [], "second": ["first"], "slides": [], "grey": []}
    assert run(["models", "add", str(tmp_path / "second"), "--replace"]) == 0
    assert "images that suit first too need --model" in capsys.readouterr().out


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "losses.csv").write_text("step,loss\n1,0.5\n240,0.25\n")
    for command in (["export"], ["add"], ["verify"]):
        assert run(["models", *command, str(tmp_path / "run")]) == 2
        printed = capsys.readouterr()
        assert "has not finished (losses.csv ends at step 240)" in printed.err
        assert "foveate train" in printed.err.splitlines()[-1]


def test_weights_that_do_not_suit_are_named_in_the_users_file(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path / "one")
    make_bundle(tmp_path / "other", bands=["gray"])
    shutil.copy(tmp_path / "other" / "weights.safetensors", tmp_path / "one")
    archive = tmp_path / "one.zip"
    assert run(["models", "export", str(tmp_path / "one"), "--out", str(archive)]) == 0
    assert run(["models", "add", str(archive)]) == 2
    assert f"error: {archive}/weights.safetensors: tensor network.head.weight has shape" in capsys.readouterr().err
    assert not data.exists()


def test_a_card_belongs_to_a_folder_of_smp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert run(["models", "add", str(bundle), "--card", "card.json"]) == 2
    assert "is no folder of save_pretrained" in capsys.readouterr().err


def test_a_folder_of_smp_needs_a_card_and_gets_shown_one(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import segmentation_models_pytorch as smp

    folder = tmp_path / "unet"
    smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=(16, 8, 8, 8, 8)).save_pretrained(folder)
    assert run(["models", "add", str(folder)]) == 2
    hint = capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "card.json").write_text(hint[hint.index("{") :])
    assert run(["models", "add", str(folder), "--card", str(tmp_path / "card.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"], found["hides"]) == ("my-model", [])
    assert {path.name for path in (data / "models" / "my-model").iterdir()} == {
        "README.md",
        "bundle.json",
        "training.yaml",
        "weights.safetensors",
    }
    shutil.rmtree(folder)
    assert run(["models", "verify", "my-model"]) == 0


def test_a_model_that_was_added_is_removed_and_no_other(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = make_bundle(tmp_path / "shipped" / "glands", name="glands")
    monkeypatch.setenv("FOVEATE_BUNDLES", str(tmp_path / "shipped"))
    assert run(["models", "remove", "glands"]) == 2
    assert f"lies in {shipped}, and was not added" in capsys.readouterr().err
    assert run(["models", "add", str(shipped)]) == 0
    capsys.readouterr()
    assert run(["models", "remove", "glands", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "removed": "glands",
        "directory": str(data / "models" / "glands"),
        "uncovers": [str(shipped)],
    }
    assert list((data / "models").iterdir()) == []
    assert shipped.is_dir()
    for unknown in ("none", "../models/glands", "."):
        assert run(["models", "remove", unknown]) == 2
        assert "models here: glands" in capsys.readouterr().err


def test_a_model_is_removed_from_a_full_disk(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has room for no further directory."""
    (data / "models" / "broken").mkdir(parents=True)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    assert run(["models", "remove", "broken"]) == 0
    assert list((data / "models").iterdir()) == []


def test_of_a_model_that_is_a_link_the_link_is_removed(tmp_path: Path, data: Path) -> None:
    bundle = make_bundle(tmp_path / "mine", name="mine")
    (data / "models").mkdir(parents=True)
    (data / "models" / "mine").symlink_to(bundle)
    assert run(["models", "remove", "mine"]) == 0
    assert list((data / "models").iterdir()) == []
    assert (bundle / "bundle.json").is_file()


def test_a_broken_model_is_removed_by_its_directory(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = data / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "bundle.json").write_text("{}")
    assert run(["models", "remove", "broken"]) == 0
    assert not broken.exists()
    assert str(broken) in capsys.readouterr().out
