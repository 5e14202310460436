from tests.service.processes import client, service, slide_id, valkey

__all__ = ["client", "service", "slide_id", "valkey"]
