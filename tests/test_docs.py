"""The pages say what the code does: links resolve, and commands, options, routes and errors are all named."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from foveate import errors
from foveate.cli import COMMANDS
from foveate.schema import SegmentOptions
from service.app import create_app
from service.errors import status_of
from service.settings import ServiceSettings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
USING = (ROOT / "docs" / "using.md").read_text()


def leaves(kind: type[errors.FoveateError]) -> Iterator[type[errors.FoveateError]]:
    """The classes that are raised; their parents only group them."""
    if not kind.__subclasses__():
        yield kind
    for child in kind.__subclasses__():
        yield from leaves(child)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_fits_a_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 45


def test_every_command_is_shown() -> None:
    shown = set(re.findall(r"foveate ([a-z]+)", USING))
    assert set(COMMANDS) - {"train", "evaluate"} <= shown


def test_every_option_of_a_segmentation_is_shown() -> None:
    fields = set(SegmentOptions.model_fields) - {"tissue_mask", "regions"}
    missing = {f"--{name.replace('_', '-')}" for name in fields} | {"--no-tissue-mask", "--no-regions"}
    assert {option for option in missing if option not in USING} == set()


def test_every_route_is_shown(tmp_path: Path) -> None:
    app = create_app(ServiceSettings(data=tmp_path))
    paths = {re.sub(r"{\w+}", "{}", path) for path in app.openapi()["paths"]}
    shown = {re.sub(r"{\w+}", "{}", path) for path in re.findall(r"`(?:[A-Z]+ )?(/[^`]*)`", USING)}
    assert {path.replace("/processes/{}", "/processes/segment") for path in paths} - shown == set()


def test_every_error_is_shown() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    raised = {(kind.code, str(status_of(kind)), str(kind.exit_code)) for kind in leaves(errors.FoveateError)}
    assert set(rows) == raised
