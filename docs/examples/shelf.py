"""Boxes on shelves: a registry out of a table, since its files are served as they are."""

from collections.abc import Iterator

from regcache.registries.plain import Named, Row, Tree


def catalog(body: bytes) -> Iterator[Named]:
    """Each line of ``SHELF/catalog.txt`` is a SHA-256, a size and a file name."""
    for line in body.decode().splitlines():
        digest, size, name = line.split()
        yield Named(name, {"sha256": digest}, int(size))


class Shelf(Tree):
    """The boxes of one warehouse."""

    default_url = "https://boxes.example/"
    read_only = "Boxes are put on the shelf by the warehouse itself."
    lines = ("box config warehouse {base}",)
    table = (
        Row(path=r"[a-z]+/catalog\.txt", reads=catalog),
        Row(path=r"(?P<shelf>[a-z]+)/(?P<package>[a-z]+)-(?P<version>[0-9.]+)\.box", indexes=("{shelf}/catalog.txt",)),
        Row(path=r"by-hash/(?P<sha256>[0-9a-f]{64})"),
        Row(path=r"notices\.txt", mutable=True),
    )
