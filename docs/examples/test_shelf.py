"""What the shelf promises."""

import hashlib

from shelf import Shelf

from regcache.testing import Ask, Page, RegistryContract, Sample

BOX = b"a box of nails"
DIGEST = hashlib.sha256(BOX).hexdigest()
URL = "https://boxes.test/"


class TestShelf(RegistryContract):
    """The contract; without ``factory`` the entry point of the type is tried."""

    type = "shelf"
    factory = Shelf

    def sample(self) -> Sample:
        return Sample(
            url=URL,
            pages={
                f"{URL}top/catalog.txt": Page(body=f"{DIGEST} {len(BOX)} nails-1.0.box\n".encode()),
                f"{URL}top/nails-1.0.box": Page(body=BOX),
                f"{URL}by-hash/{DIGEST}": Page(body=BOX),
            },
            documents=(Ask("/top/catalog.txt"),),
            artifacts={
                Ask("/top/nails-1.0.box"): f"{URL}top/nails-1.0.box",
                Ask(f"/by-hash/{DIGEST}"): f"{URL}by-hash/{DIGEST}",
            },
            nameless=frozenset({Ask("/top/catalog.txt"), Ask(f"/by-hash/{DIGEST}")}),
        )
