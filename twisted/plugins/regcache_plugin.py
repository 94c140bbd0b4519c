"""The ``twistd`` plugin: it only names the module that does the work."""

from twisted.application.service import ServiceMaker

regcache = ServiceMaker(
    "regcache",
    "regcache.tap",
    "A caching reverse proxy for package registries.",
    "regcache",
)
