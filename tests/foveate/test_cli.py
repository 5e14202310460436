"""The command line's frame: exit codes, where things are printed, and the last line of an error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.cli import COMMANDS, run
from foveate.client import Client
from tests.service.processes import SLIDE, Service

GONE = "http://127.0.0.1:1"


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: foveate " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["nonsense"], 2, "foveate --help"),
        (["jobs", "list", "--colour", "red"], 2, "foveate jobs list --help"),
        (["submit"], 2, "foveate submit --help"),
        (["submit", "/nowhere/image.tif"], 2, "check the path"),
        (["submit", str(SLIDE), "--roi", "1,2"], 2, "--roi 0,0,4096,4096"),
        (["submit", str(SLIDE), "--overlap", "2"], 2, "foveate segment --help"),
        (["segment", str(SLIDE), "--out", "/nowhere/out", "--device", "gpu"], 2, "auto takes the first GPU"),
        (["evaluate", "/nowhere/recipe.yaml", "--device", "cuda:"], 2, "auto takes the first GPU"),
        (["jobs", "list", "--server", GONE], 1, "foveate up"),
        (["images", "list", "--server", "nonsense"], 1, "foveate up"),
    ],
)
def test_error_ends_with_what_to_do(
    arguments: list[str], code: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert last_line(printed.err).startswith("hint: ")
    assert hint in last_line(printed.err)
    assert "Traceback" not in printed.err


def test_no_device_is_named_beside_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", str(SLIDE), "--out", "/nowhere/out", "--device", "cuda:01", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "option-invalid"
    assert error["message"] == "--device: 'cuda:01' is no device: auto, cpu, cuda or cuda:N"


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "jobs", interrupted)
    assert run(["jobs", "list", "--server", GONE, "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["code"] == "interrupted"
    assert last_line(printed.err) == "hint: run the same command again to go on"


def test_jobs_are_listed_with_their_images_and_models(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with service.client() as client:
        image = client.upload(SLIDE).id
        job = client.wait(client.submit(image).jobID, every=0.05).jobID

        def listed() -> list[str]:
            assert run(["jobs", "list", "--server", service.url]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[0].split() == ["job", "status", "created", "model", "image", "message"]
            return next(line.split() for line in lines if line.startswith(job))

        assert listed()[4:] == ["glands", SLIDE.name, "done"]
        client.delete_image(image)
        assert listed()[4:] == ["glands", image, "done"]
        shown = client.job(job)
        assert (shown.image, shown.imageName, shown.model) == (image, None, "glands")


def test_a_failed_job_is_shown_with_what_to_do(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged.svs"
    damaged.symlink_to(SLIDE)
    assert run(["submit", str(damaged), "--server", service.url, "--wait", "--json"]) == 2
    job = json.loads(capsys.readouterr().out)["jobs"][0]["jobID"]
    assert run(["jobs", "show", job, "--server", service.url]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["status"], shown["code"]) == ("failed", "image-damaged")
    assert shown["hint"] == "export the slide again"
    assert run(["jobs", "show", job, "--server", service.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hint"] == "export the slide again"


def test_error_as_json_stands_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list", "--server", GONE, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "service-unreachable"


def test_image_becomes_a_directory_of_results(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["submit", str(SLIDE), "--server", service.url, "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    (job,) = json.loads(printed.out)["jobs"]
    assert (job["status"], job["error"]) == ("successful", None)
    assert {path.name for path in out.iterdir()} == {"mask.tif", "statistics.json", "manifest.json"}
    assert "upload" in printed.err

    assert run(["submit", str(SLIDE), "--server", service.url, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err

    assert run(["jobs", "list", "--server", service.url]) == 0
    assert job["jobID"] in capsys.readouterr().out
    assert run(["jobs", "fetch", job["jobID"], "--server", service.url, "--out", str(tmp_path / "again")]) == 0
    assert str(tmp_path / "again" / "mask.tif") in capsys.readouterr().out
    assert run(["jobs", "cancel", job["jobID"], "--server", service.url]) == 0
    assert run(["jobs", "show", job["jobID"], "--server", service.url]) == 2


def test_refused_image_is_not_left_in_the_service(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with service.client() as client:
        before = client.images()
        assert run(["submit", str(SLIDE), "--model", "none", "--server", service.url]) == 2
        assert client.images() == before
    assert "no model 'none'" in capsys.readouterr().err


def test_one_bad_image_does_not_stop_the_others(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "text.tif"
    bad.write_text("no image")
    assert run(["submit", str(bad), str(SLIDE), "--wait", "--server", service.url, "--json"]) == 2
    statuses = [job["status"] for job in json.loads(capsys.readouterr().out)["jobs"]]
    assert statuses == ["not sent", "successful"]


def test_images_are_listed_and_deleted(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with service.client() as client:
        image = client.upload(SLIDE).id
    assert run(["images", "list", "--server", service.url, "--json"]) == 0
    assert image in {entry["id"] for entry in json.loads(capsys.readouterr().out)["images"]}
    assert run(["images", "delete", image, "--server", service.url]) == 0
    assert run(["images", "delete", image, "--server", service.url]) == 2
    capsys.readouterr()


def test_images_that_were_deleted_before_one_could_not_be_are_named(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    with service.client() as client:
        first, last = client.upload(SLIDE).id, client.upload(SLIDE).id
    assert run(["images", "delete", first, "no-such-image", last, "--server", service.url]) == 2
    told = capsys.readouterr()
    assert told.out == f"{first}: deleted\n"
    assert "no-such-image" in told.err
    with service.client() as client:
        ids = {image.id for image in client.images()}
    assert last in ids
    assert first not in ids
    assert run(["images", "delete", last, "no-such-image", "--server", service.url, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["deleted"], document["error"]["code"]) == ([last], "no-such-image")


def test_models_of_a_service(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--server", service.url]) == 0
    assert "glands" in capsys.readouterr().out
    assert run(["models", "show", "glands", "--server", service.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "glands"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "."], ". exists already"),
        (["--roi", "90000,0,10,10"], "lies outside the image"),
        (["--coverage", "dense", "--detail", "0.5"], "detail 0.5 steers adaptive coverage"),
        (["--policy", "fixed:9"], "the bundle has 2 fields of view"),
        (["--model", "landcover"], "is a slide, and landcover was trained on scenes"),
    ],
)
def test_what_needs_no_network_is_refused_before_torch_is_loaded(words: list[str], said: str, tmp_path: Path) -> None:
    """Torch takes seconds to load: a mistake in the command line is told at once."""
    code = """
import sys
from foveate.cli import run
code = run(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""
    command = ["segment", str(SLIDE), "--model", "glands", "--out", str(tmp_path / "out"), *words]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []
