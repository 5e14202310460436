"""Medians, spreads, tables and the page of results."""

import argparse
import json
from pathlib import Path

import pytest

from bench import runner
from bench.report import Records, machine, markdown, middle, spread
from bench.runner import repeats, run, with_section


def test_the_middle_is_the_median_and_the_spread_runs_from_least_to_largest() -> None:
    assert middle([3.0, 1.0, 100.0]) == 3.0
    assert middle([1.0, 2.0]) == 1.5
    assert spread([3.0, 1.0, 123.4]) == "1 to 123"


def test_numbers_are_rounded_and_stand_to_the_right() -> None:
    table = markdown(("name", "value"), [("a", 0.12345), ("b", 1234.6)])
    assert table.splitlines() == ["| name | value |", "| --- | ---: |", "| a | 0.123 |", "| b | 1235 |"]


def test_a_column_with_words_in_it_stands_to_the_left() -> None:
    assert markdown(("x",), [(1,), ("refused",)]).splitlines()[1] == "| --- |"


def test_a_section_is_replaced_and_its_neighbours_stay() -> None:
    page = with_section(with_section("# Results\n", "floor", "old"), "read", "kept")
    assert with_section(page, "floor", "new\n") == "# Results\n\n## floor\n\nnew\n\n## read\n\nkept\n"


def test_a_section_whose_name_begins_like_another_is_left_alone() -> None:
    page = with_section("# Results\n", "floor-2", "kept")
    assert with_section(page, "floor", "new").endswith("## floor-2\n\nkept\n\n## floor\n\nnew\n")


def test_the_machine_is_told_with_its_commit_and_date() -> None:
    found = machine()
    assert {"cpu", "cores", "memory_gb", "system", "python", "torch", "commit", "date"} <= set(found)
    assert found["cores"] >= 1


def test_one_run_prints_writes_json_and_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["bench", "--json", str(tmp_path / "out.json"), "--results", "--repeats", "2"])

    def measure(asked: argparse.Namespace) -> Records:
        return [{"seconds": [1.0] * asked.repeats}]

    run("toy", "a toy", measure, lambda records: str(records[0]["seconds"]), lambda parser: repeats(parser, 5))
    assert "[1.0, 1.0]" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["results"] == [{"seconds": [1.0, 1.0]}]
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.startswith("# Results") and "## toy\n" in page and "[1.0, 1.0]" in page
