"""Settings that all tests share."""

from hypothesis import settings

settings.register_profile("regcache", deadline=None, max_examples=60)
settings.load_profile("regcache")
