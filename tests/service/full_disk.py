"""`python -m tests.service.full_disk FD`: the real API on a disk that has room for 100,000 bytes more."""

import socket
import sys

import uvicorn

from jobs.files import RESERVE_BYTES
from jobs.settings import read_settings
from service.app import create_app
from service.settings import ServiceSettings

ROOM = 100_000

if __name__ == "__main__":
    app = create_app(read_settings(ServiceSettings), free=lambda _: RESERVE_BYTES + ROOM)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
