"""Parcels: a registry whose pages hold links, which have to lead back through the proxy."""

import json
import re
from typing import Any

from regcache.errors import BadDocument
from regcache.http.messages import Digest, RequestHead
from regcache.registries.jsontext import read_object
from regcache.registries.plain import Plain
from regcache.routes import Artifact, Document, Fact, Facts, Route, Source

_PAGE = re.compile(r"parcels/([a-z]+)\.json")
_FILE = re.compile(r"files/([a-z]+)-[0-9.]+\.parcel")


class Parcels(Plain):
    """``parcels/NAME.json`` lists the files of a parcel by URL and SHA-512."""

    default_url = "https://parcels.example/"
    algorithms = ("sha512",)
    lines = ("parcel --from {base} fetch NAME",)

    def means(self, parts: tuple[str, ...], request: RequestHead) -> Route | None:
        path = "/".join(parts)
        if page := _PAGE.fullmatch(path):
            return self._page(page[1])
        if file := _FILE.fullmatch(path):
            # The page tells what the file must be, also to whoever has nothing but a lock file.
            return Artifact(key=path, url=self.place(path), indexes=(self._page(file[1]),), packages=(file[1],))
        return None

    def _page(self, name: str) -> Document:
        path = f"parcels/{name}.json"
        return Document(
            key=path,
            url=self.place(path),
            representation="page",
            content_type="application/json",
            linked=True,
            packages=(name,),
        )

    def facts(self, document: str, source: Source) -> Facts:
        found = {}
        for file in _files(source, read_object(source)):
            path = file["url"].removeprefix(self.options.url)
            found[path] = Fact(url=file["url"], digests=(Digest("sha512", file["sha512"]),))
        return Facts(found, foreign=[path for path in found if "://" in path])

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        page = read_object(source)
        for file in _files(source, page):
            if file["url"].startswith(self.options.url):
                file["url"] = base + file["url"].removeprefix(self.options.url)
        return json.dumps(page).encode()


def _files(source: Source, page: dict[str, Any]) -> list[dict[str, str]]:
    files = page.get("files")
    if not isinstance(files, list) or not all(
        isinstance(one, dict) and {"url", "sha512"} <= one.keys() for one in files
    ):
        raise BadDocument(f"{source.url} lists no files.")
    return files
