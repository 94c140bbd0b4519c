"""What the parcels promise."""

import hashlib
import json
from collections.abc import Iterable

from parcels import Parcels

from regcache.testing import Ask, Page, RegistryContract, Sample

PARCEL = b"a parcel of books"
URL = "https://parcels.test/"
FILE = f"{URL}files/books-1.0.parcel"


class TestParcels(RegistryContract):
    """The contract."""

    type = "parcels"
    factory = Parcels

    def sample(self) -> Sample:
        page = {"files": [{"url": FILE, "sha512": hashlib.sha512(PARCEL).hexdigest()}]}
        return Sample(
            url=URL,
            pages={f"{URL}parcels/books.json": Page(body=json.dumps(page).encode()), FILE: Page(body=PARCEL)},
            documents=(Ask("/parcels/books.json"),),
            artifacts={Ask("/files/books-1.0.parcel"): FILE},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        return [file["url"] for file in json.loads(body)["files"]]
