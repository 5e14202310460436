"""`python -m tests.worker.fake_worker`: a real worker process around the fake pipeline.

SETTLE_SECONDS in its environment makes the disk that slow.
"""

import logging
import os
import time

from jobs.files import FileStore
from jobs.settings import read_settings
from worker.process import run_worker
from worker.settings import WorkerSettings

if __name__ == "__main__":
    if seconds := os.environ.get("SETTLE_SECONDS"):
        FileStore.settle = lambda self, out: time.sleep(float(seconds))  # type: ignore[method-assign]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(message)s")
    run_worker(read_settings(WorkerSettings), "tests.worker.fake_pipeline:run")
