from tests.service.processes import client, done, service, slide_id, valkey

__all__ = ["client", "done", "service", "slide_id", "valkey"]
