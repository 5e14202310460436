"""`python -m tests.worker.fake_worker`: a real worker process around the fake pipeline."""

import logging

from jobs.settings import read_settings
from worker.process import run_worker
from worker.settings import WorkerSettings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(message)s")
    run_worker(read_settings(WorkerSettings), "tests.worker.fake_pipeline:run")
