"""Print the requirements of dependency groups of pyproject.toml, one a line.

usage: python deploy/group.py GROUP...

pip learnt `--group` in 25.1; the pip that comes with Python 3.11 has not.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


def requirements(group: str) -> set[str]:
    """The requirements of `group`, those of the groups that it includes among them."""
    found: set[str] = set()
    for entry in PROJECT["dependency-groups"][group]:
        found |= {entry} if isinstance(entry, str) else requirements(entry["include-group"])
    return found


if __name__ == "__main__":
    wanted = set().union(set(PROJECT["project"]["dependencies"]), *(requirements(group) for group in sys.argv[1:]))
    print("\n".join(sorted(wanted)))
