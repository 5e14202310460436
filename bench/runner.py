"""What every bench shares: its command line, and where its figures go.

    make bench NAME=floor [JSON=FILE] [RESULTS=1] [SIZE=1024] [REPEATS=3]

runs `python -m bench.floor`: whatever it starts lies in its own process group, so Ctrl-C ends all of it. RESULTS=1 puts
the section of that bench into bench/RESULTS.md, in place of an older one; what was never measured has no section.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from bench.report import ROOT, Records, machine, spelled, write_report

RESULTS = ROOT / "bench" / "RESULTS.md"
_HEAD = """# Results

Written by `make bench NAME=… RESULTS=1`, section by section; every section names the machine and the commit that it was
measured on. Times are medians; a spread runs from the least to the largest.
"""


def run(
    name: str,
    about: str,
    measure: Callable[[argparse.Namespace], Records],
    table: Callable[[Records], str],
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Parse the command line, measure, and print; `about` is the bench's docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--results", action="store_true", help="put the table into bench/RESULTS.md")
    asked = parser.parse_args()
    found = machine()
    records = measure(asked)
    shown = f"{spelled(found)}\n\n{table(records)}"
    print(shown)
    write_report(asked.json, name, records)
    if asked.results:
        RESULTS.write_text(with_section(RESULTS.read_text() if RESULTS.exists() else _HEAD, name, shown))


def with_section(page: str, name: str, text: str) -> str:
    """The page with its section `name` holding `text`, in place of what it held; a new section goes to the end."""
    section = f"## {name}\n\n{text.strip()}\n"
    found = re.search(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        return f"{page.rstrip()}\n\n{section}"
    return page[: found.start()] + section + ("\n" if page[found.end() :] else "") + page[found.end() :]


def repeats(parser: argparse.ArgumentParser, usual: int) -> None:
    parser.add_argument("--repeats", type=int, default=usual, metavar="N", help=f"runs of each (default {usual})")
