"""The file of those who may use the cache: names, each with the hash of a password or of a token."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from importlib.util import find_spec

from attrs import field, frozen

from regcache.errors import ConfigError

__all__ = ["Readers"]

#: What one check may cost: rounds of bcrypt as a power of two, and KiB, passes and lanes of Argon2.
_MOST_ROUNDS, _MOST_KIB, _MOST_PASSES, _MOST_LANES = 16, 256 << 10, 64, 16
#: As many bytes as bcrypt hashes; what makes such files cuts longer passwords there as well.
_BCRYPT_BYTES = 72
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_TOKEN = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME = re.compile(r"[^\s:,]{1,255}")
#: What to install for a module that checks hashes.
_DISTRIBUTIONS = {"argon2": "argon2-cffi", "bcrypt": "bcrypt"}
#: How hashes begin that are not taken, and why.
_REFUSED = (
    (r"\$apr1\$|\$1\$", "as MD5, which is quickly guessed"),
    (r"\{SHA\}", "as SHA-1 without salt, which is quickly guessed"),
    (r"\$[56]\$", "by SHA-crypt, which is not read here"),
    (r"[./A-Za-z0-9]{13}$", "by crypt, which is quickly guessed, or as it is"),
    (r"sha256:", "as a token's SHA-256, which is not one of 64 hexadecimal digits"),
    (r"\$2|\$argon2", "by bcrypt or Argon2, but not whole, or at a cost that no request is worth"),
    (r"", "as it is, or in a way that is not known here"),
)


@frozen
class Readers:
    """
    Those who may use the cache.

    :ivar passwords: hashes by name.
    :ivar tokens: the SHA-256 of each token, and whose it is. Tokens are random, so that a quick hash will do.
    """

    passwords: Mapping[str, str] = field(factory=dict, repr=False)
    tokens: tuple[tuple[bytes, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, text: str, path: str) -> Readers:
        """
        What a file says: ``NAME:HASH`` a line; what begins with ``#`` is a remark.

        :raises regcache.errors.ConfigError: naming the line, without what is secret in it.
        """
        passwords: dict[str, str] = {}
        tokens: list[tuple[bytes, str]] = []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            where = f"{path}, line {number}"
            name, colon, kept = line.partition(":")
            if not colon or not _NAME.fullmatch(name) or not name.isprintable():
                raise ConfigError(f"{where}: it wants NAME:HASH, as htpasswd -B makes it.")
            token = _TOKEN.fullmatch(kept)
            if token is not None:
                tokens.append((bytes.fromhex(token[1]), name))
                continue
            library = "argon2" if kept.startswith("$argon2") else "bcrypt" if kept.startswith("$2") else ""
            if library and find_spec(library) is None:
                told = f"{library} is not installed, which checks it"
                raise ConfigError(f"{where}: {told}: pip install {_DISTRIBUTIONS[library]}")
            if not _can_be_checked(kept):
                why = next(why for begin, why in _REFUSED if re.match(begin, kept))
                raise ConfigError(f"{where}: the password of {name} is kept {why}; make it anew: htpasswd -B FILE NAME")
            if name in passwords:
                raise ConfigError(f"{where}: {name} has a password already, in a line before.")
            passwords[name] = kept
        if not passwords and not tokens:
            raise ConfigError(f"{path} lets nobody in: it wants lines of NAME:HASH, as htpasswd -B makes them.")
        return cls(passwords, tuple(tokens))

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {*self.passwords, *(name for _, name in self.tokens)}

    def owner(self, token: bytes, name: str = "") -> str:
        """
        Whose token that is; empty if it is nobody's. How long it takes tells nothing of the tokens there are.

        :param name: who says it is theirs, if they say.
        """
        digest, found = hashlib.sha256(token).digest(), ""
        for kept, owner in self.tokens:
            # Every one is looked at, also after it was found.
            if hmac.compare_digest(kept, digest) and name in ("", owner):
                found = owner
        return found

    def fits(self, name: str, password: bytes) -> bool:
        """
        Whether that is the password of ``name``. Meant to take long: not on the reactor's thread.

        For a name that is not there it takes as long, so that nobody learns which are.
        """
        kept = self.passwords.get(name) or next(iter(self.passwords.values()), "")
        return bool(kept) and _matches(kept, password) and name in self.passwords


def _can_be_checked(kept: str) -> bool:
    """Whether it is a hash of a kind and a cost that a request may be checked against."""
    found = _BCRYPT.fullmatch(kept)
    if found is not None:
        return 4 <= int(found[1]) <= _MOST_ROUNDS
    if not kept.startswith("$argon2"):
        return False
    import argon2

    try:
        cost = argon2.extract_parameters(kept)
    except (argon2.exceptions.InvalidHashError, ValueError):
        return False
    return cost.memory_cost <= _MOST_KIB and cost.time_cost <= _MOST_PASSES and cost.parallelism <= _MOST_LANES


def _matches(kept: str, password: bytes) -> bool:
    if kept.startswith("$argon2"):
        import argon2

        try:
            return argon2.PasswordHasher().verify(kept, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
    import bcrypt

    try:
        return b"\0" not in password and bcrypt.checkpw(password[:_BCRYPT_BYTES], kept.encode())
    except ValueError:
        return False
