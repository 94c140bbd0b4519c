"""The contract of registries, where the upstream is followed in how long things are fresh."""

from __future__ import annotations

import importlib

from regcache.testing import RegistryContract
from tests.own import own_names

#: The promises that hang on no lifetime: they are tried where the registry is tried.
_PURE = (
    "clients_are_told_how",
    "errors_can_be_read",
    "every_spelling_is_one",
    "hostile_paths",
    "it_provides_the_interface",
    "names_of_another_are_never_asked_for",
    "rewriting_is_idempotent",
    "routes_stay_inside_the_configured_hosts",
    "rubbish_is_no_document",
)


def _following(contract: type[RegistryContract]) -> type[RegistryContract]:
    promises = {"follows": True, "transient": (503,), "__doc__": contract.__doc__} | {
        f"test_{name}": None for name in _PURE
    }
    return type(f"TestFollowing{contract.type.title()}", (contract,), promises)


for _name in own_names():
    _found = _following(importlib.import_module(f"tests.test_{_name}").TestContract)
    globals()[_found.__name__] = _found


def test_all_are_tried() -> None:
    """No registry is left out, and no promise is passed over that is none."""
    tried = {name.removeprefix("TestFollowing").lower() for name in globals() if name.startswith("TestFollowing")}
    assert tried == {*own_names()}
    assert all(callable(getattr(RegistryContract, f"test_{name}", None)) for name in _PURE)
