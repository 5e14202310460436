"""Options, progress, tables and the look-up of the engine."""

import io
import json

import pytest

from foveate.engine import engine
from foveate.errors import EngineMissing, OptionInvalid
from foveate.options import segment_options
from foveate.output import print_table
from foveate.progress import show_progress
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


def test_engine_is_found_by_name_or_missed_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine("foveate.errors:EngineMissing") is EngineMissing
    with pytest.raises(EngineMissing, match="no_such_library") as caught:
        engine("no_such_library:main")
    assert "make" in caught.value.hint
    monkeypatch.setattr("foveate.engine.ENGINE_PACKAGES", frozenset({"no_such_library"}))
    with pytest.raises(EngineMissing, match="client only"):
        engine("no_such_library:main")
    with pytest.raises(ModuleNotFoundError):
        monkeypatch.setattr("foveate.engine.ENGINE_PACKAGES", frozenset({"foveate"}))
        engine("foveate.no_such_module:main")
