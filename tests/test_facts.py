"""Facts in their stored form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.flow import facts as module
from regcache.flow.facts import decode_facts, encode_facts, unpacked
from regcache.http.messages import Digest
from regcache.routes import Document, Fact

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DIGESTS = st.lists(st.binary(min_size=32, max_size=32).map(lambda value: Digest("sha256", value.hex())), max_size=2)
PROOFS = st.none() | KEYS.map(
    lambda key: Document(key=key, url="https://x.example/p", accept="a/b", representation="", content_type="")
)
FACTS = st.builds(Fact, url=KEYS, digests=DIGESTS.map(tuple), size=st.none() | st.integers(0, 2**60), proof=PROOFS)


@given(st.dictionaries(KEYS, FACTS, max_size=20), KEYS)
def test_what_is_stored_is_what_there_was(facts: dict[str, Fact], other: str) -> None:
    """Every fact is found under its key, and nothing under another."""
    stored = decode_facts(encode_facts(facts))
    assert len(stored) == len(facts)
    assert {key: unpacked(fact) for key, fact in stored.items()} == facts
    assert (other in stored) == (other in facts)
    assert stored.get("\ud800") is None


def test_one_is_found_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking one up decodes that one alone, and compares a few keys."""
    stored = encode_facts({f"pool/{number}": Fact(url=str(number)) for number in range(10_000)})
    decoded: list[bytes] = []

    class Counting:
        def decode(self, data: bytes) -> object:
            decoded.append(data)
            return decoder.decode(data)

    decoder = module._FACT
    monkeypatch.setattr(module, "_FACT", Counting())
    compared: list[int] = []
    original = module._Table._key

    def counted(self: module._Table, index: int) -> bytes:
        compared.append(index)
        return original(self, index)

    monkeypatch.setattr(module._Table, "_key", counted)
    assert decode_facts(stored)["pool/7777"].url == "7777"
    assert len(decoded) == 1
    assert len(compared) < 20


def test_a_key_that_is_no_text_is_refused() -> None:
    """Half a surrogate pair cannot be a path of anything."""
    with pytest.raises(UnicodeEncodeError):
        encode_facts({"\ud800": Fact(url="x")})
