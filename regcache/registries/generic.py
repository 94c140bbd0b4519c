"""Any HTTP tree: every path is a body that may change, kept by the forcing rules."""

from __future__ import annotations

from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed
from regcache.http.messages import RequestHead
from regcache.http.origins import Origins
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Facts, RegistryOptions, Route, Source

__all__ = ["Generic"]


@implementer(IRegistry)
class Generic:
    """
    A tree of files, such as a directory of releases.

    Nothing is known about what lies in it: nothing is rewritten, and nothing can be verified.
    """

    default_url = ""
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms: tuple[str, ...] = ()

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self._origins = Origins.of([options.url], options.artifact_hosts)

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method} is not passed on.")
        path = "/".join(map(quote, segments(request.path, keep_slash=True)))
        path += f"?{request.query}" if request.query else ""
        return Artifact(key=path, url=self.options.url + path, mutable=True)

    def facts(self, document: str, source: Source) -> Facts:
        del source
        raise BadDocument(f"{document} is no index.")

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del source, representation, base
        raise BadDocument(f"{document} is no index.")

    def allows(self, url: str) -> bool:
        return self._origins.allows(url)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        del status
        return "text/plain; charset=utf-8", text.encode() + b"\n"

    def client_lines(self, base: str) -> list[str]:
        return [f"curl -O {base}PATH"]
