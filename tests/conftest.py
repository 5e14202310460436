"""Property tests run the same examples every time and are never judged by the clock: the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("foveate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("foveate")
