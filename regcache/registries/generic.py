"""Any HTTP tree: every path is a body that may change, kept by the forcing rules or by the upstream's own word."""

from __future__ import annotations

from regcache.errors import MethodNotAllowed
from regcache.http.messages import RequestHead
from regcache.http.paths import requoted
from regcache.registries.plain import Plain
from regcache.routes import Artifact, Resource, Route

__all__ = ["Generic"]


class Generic(Plain):
    """
    A tree of files, such as a directory of releases.

    Nothing is known about what lies in it: nothing is rewritten, and nothing can be verified.
    """

    algorithms = ()
    lines = ("curl -O {base}PATH",)

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD", *self.options.methods):
            raise MethodNotAllowed(f"{request.method} is not passed on.")
        # Empty segments and encoded slashes may mean something there.
        path = requoted(request.path)
        path += f"?{request.query}" if request.query else ""
        if self.options.follows:
            return Resource(key=path, url=self.options.url + path)
        return Artifact(key=path, url=self.options.url + path, mutable=True)
