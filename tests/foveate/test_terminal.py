"""Options, progress, tables and the look-up of the engine."""

import builtins
import io
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import EngineMissing, OptionInvalid
from foveate.options import segment_options
from foveate.output import print_table
from foveate.progress import show_progress
from foveate.resolve import TRAINING_LIBRARIES, resolve
from foveate.schema import StatusInfo


def test_options_are_read_from_text() -> None:
    options = segment_options(roi="1,2,3.5,4", bands="4,3,2", rescale="0,3000", overlap=0.5, model=None)
    assert (options.roi, options.bands, options.rescale) == ((1, 2, 3.5, 4), [4, 3, 2], (0, 3000))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"roi": "1,2,3"}, "--roi"),
        ({"bands": "red"}, "--bands"),
        ({"bands": "1.5"}, "--bands"),
        ({"bands": "0"}, "--bands"),
        ({"rescale": "9,1"}, "upside down"),
        ({"mask_downsample": 3}, "--mask-downsample"),
        ({"mask_downsample": 2048}, "8, … 1024"),
        ({"mask_downsample": 2**70}, "8, … 1024"),
        ({"roi": "1e308,0,1e308,1"}, "not a place"),
        ({"outputs": "masks"}, "--outputs"),
        ({"coverage": "thin"}, "--coverage"),
    ],
)
def test_wrong_option_is_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(OptionInvalid, match=words) as caught:
        segment_options(**given)
    assert caught.value.hint


def test_progress_off_a_terminal_is_a_line_every_few_percent() -> None:
    stream = io.StringIO()
    with show_progress("segment", stream) as report:
        for step in range(1001):
            report(step / 1000, "patches")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[-1].startswith("segment: 100% patches")


def test_progress_on_a_terminal_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with show_progress("segment", stream) as report:
        report(0.5, "patches")
    assert "50%" in stream.getvalue()


def test_table_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = StatusInfo.model_validate({"jobID": "a", "status": "accepted"})
    print_table({"jobs": [status]}, ("job", "status"), [("a", "accepted")], False)
    assert capsys.readouterr().out == "job  status\na    accepted\n"
    print_table({"jobs": [status]}, ("job", "status"), [("a", "accepted")], True)
    (shown,) = json.loads(capsys.readouterr().out)["jobs"]
    assert shown["status"] == "accepted"
    assert None not in shown.values()


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (80, "a    T33UUB_20260105_cloudless.tif  3 of 9 tiles cannot be decoded"),
        (50, "a    T33UUB_202…udless.tif  3 of 9 tiles cannot b…"),
        (20, "a    T33U…tif  3 of 9 …"),
        (None, "a    T33UUB_20260105_cloudless.tif  3 of 9 tiles cannot be decoded"),
    ],
)
def test_a_table_is_cut_to_the_terminal_and_never_in_a_pipe(
    room: int | None, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(room or 20))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: room is not None)
    row = ("a", "T33UUB_20260105_cloudless.tif", "3 of 9 tiles cannot be decoded")
    print_table({}, ("job", "image", "message"), [row], False, elastic=("image", "message"))
    assert capsys.readouterr().out.splitlines()[1] == shown


def test_engine_is_found_by_name_or_missed_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("foveate.errors:EngineMissing") is EngineMissing
    with pytest.raises(EngineMissing, match="no_such_library") as caught:
        resolve("no_such_library:main")
    assert "make" in caught.value.hint
    monkeypatch.setattr("foveate.resolve.ENGINE_PACKAGES", frozenset({"no_such_library"}))
    with pytest.raises(EngineMissing, match="client only"):
        resolve("no_such_library:main")
    with pytest.raises(ModuleNotFoundError):
        monkeypatch.setattr("foveate.resolve.ENGINE_PACKAGES", frozenset({"foveate"}))
        resolve("foveate.no_such_module:main")


def test_a_library_of_training_is_installed_by_its_own_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who ran `make install`, as the README says, has everything but what training needs."""
    real = builtins.__import__

    def without_scipy(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    monkeypatch.delitem(sys.modules, "model.datasets.gap", raising=False)
    with pytest.raises(EngineMissing, match="'scipy'") as caught:
        resolve("model.datasets.gap:between_objects")
    assert "`make install-train`" in caught.value.hint


def test_the_libraries_of_training_are_those_of_its_group() -> None:
    groups = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["dependency-groups"]
    named = {re.split(r"[<>=]", entry)[0] for entry in groups["train"] if isinstance(entry, str)}
    assert {name for name in named if not name.startswith("efficientnet")} == TRAINING_LIBRARIES
