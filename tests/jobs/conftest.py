from tests.jobs.state import connection, files, queue, server, store

__all__ = ["connection", "files", "queue", "server", "store"]
