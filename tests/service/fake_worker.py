"""`python -m tests.service.fake_worker`: a real worker and engine around the fake pipeline."""

from jobs.settings import read_settings
from worker.process import run_worker
from worker.settings import WorkerSettings

if __name__ == "__main__":
    run_worker(read_settings(WorkerSettings), "tests.service.fake_pipeline:run")
