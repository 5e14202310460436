"""`python -m worker`: one worker, set up by FOVEATE_* variables."""

import logging
import sys

from foveate.errors import FoveateError
from jobs.settings import read_settings
from worker.process import run_worker
from worker.settings import WorkerSettings

__all__ = ["main"]


def main() -> int:
    """The exit code; errors go to stderr, the last line says what to do."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(message)s")
    try:
        run_worker(read_settings(WorkerSettings))
    except FoveateError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)  # noqa: T201 (a command's own output)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
