"""
What opens an upstream that does not let everybody in: credentials and client certificates, as they are configured.

None of it stands in a registry's options: those are handed to other processes and compared, and nothing of this is.
"""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from regcache.errors import ConfigError
from regcache.http.origins import Origin
from regcache.http.proxies import basic
from regcache.values import absolute

__all__ = ["KEYS", "Credentials", "Held", "exposed", "held", "read"]

#: The keys of a registry's table that say it.
KEYS = ("auth", "client-cert", "client-key")

_WANTED = "basic USER:PASSWORD, bearer TOKEN or token TOKEN"
_LEAST_SECRET = 5
_TOKEN = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@frozen(kw_only=True)
class Credentials:
    """
    The credentials for one registry's upstream.

    :ivar authorization: the value of the Authorization field; empty for none, or for what the file says.
    :ivar netrc: the file in which to look for the upstream's host, or empty.
    :ivar certificate: a PEM file with the certificate to show, and those between it and its root; or empty.
    :ivar key: a PEM file with its key.
    :ivar files: the files in which secrets stand, each with the bits of its mode by which others could read it.
    """

    authorization: str = field(default="", repr=False)
    netrc: str = ""
    certificate: str = ""
    key: str = ""
    files: tuple[tuple[str, int], ...] = ()


def read(name: str, table: Mapping[str, object], file: str, environ: Mapping[str, str]) -> Credentials | None:
    """
    The credentials that a registry's table names; None if it names none.

    :param file: where the table stands.
    :raises regcache.errors.ConfigError: saying what is wrong, without what is secret.
    """
    found = Credentials()
    if "auth" in table:
        found = _auth(str(table["auth"]), f"registries.{name}.auth", file, environ)
    if "client-cert" in table:
        certificate, key = _pair(table, f"registries.{name}.client-cert")
        found = evolve(found, certificate=certificate, key=key, files=(*found.files, (key, 0o007)))
    elif "client-key" in table:
        raise ConfigError(f"registries.{name}.client-key: it is the key of a client-cert, which is not there.")
    return found if found != Credentials() else None


def _auth(text: str, where: str, file: str, environ: Mapping[str, str]) -> Credentials:
    text = text.strip()
    if text == "netrc":
        home = environ.get("HOME") or os.path.expanduser("~")
        path = environ.get("NETRC") or os.path.join(home, ".netrc")
        return Credentials(netrc=path, files=((path, 0o077),))
    if not text.startswith("env:"):
        return Credentials(authorization=_authorization(text, where), files=((file, 0o007),))
    variable = text.removeprefix("env:").strip()
    if not environ.get(variable):
        raise ConfigError(f"{where}: the environment variable {variable} is not set; it is to hold {_WANTED}.")
    return Credentials(authorization=_authorization(environ[variable].strip(), f"{where}, from {variable}"))


def _authorization(text: str, where: str) -> str:
    kind, _, rest = text.partition(" ")
    kind, rest = kind.lower(), rest.strip()
    try:
        if kind == "basic" and ":" in rest:
            user, _, password = rest.partition(":")
            return basic(user, password)
        if kind in ("bearer", "token") and _TOKEN.fullmatch(rest):
            return f"Bearer {rest}" if kind == "bearer" else rest
    except ValueError:
        pass
    # The text is not shown: it is secret, or was to be.
    raise ConfigError(f"{where} is not right; it wants {_WANTED}, or in the file env:VARIABLE or netrc.")


def _pair(table: Mapping[str, object], where: str) -> tuple[str, str]:
    """The files of a certificate and of its key, which belong together."""
    said = str(table["client-cert"]), str(table.get("client-key", table["client-cert"]))
    try:
        certificate, key = absolute(said[0]), absolute(said[1])
        for path in (certificate, key):
            Path(path).read_bytes()
    except (OSError, ValueError) as error:
        named = getattr(error, "filename", None) or said[0]
        raise ConfigError(f"{where}: {named}: {getattr(error, 'strerror', None) or 'it wants a file'}.") from None
    try:
        # Whoever starts a service is not to be asked for a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        files = certificate if certificate == key else f"{certificate} and {key}"
        why = getattr(error, "reason", None) or error
        raise ConfigError(
            f"{where}: {files}: it wants PEM files of a certificate and its key, without a password ({why})."
        ) from None
    return certificate, key


@frozen
class Held:
    """
    What one registry's requests to its own upstream carry.

    :ivar origin: to no other are they given.
    :ivar authorization: the value of the Authorization field, or empty.
    """

    origin: Origin
    authorization: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All by which the credentials could be known, the longest first."""
        value = self.authorization.partition(" ")[2] or self.authorization
        found = {self.authorization, value}
        if self.authorization.startswith("Basic "):
            with contextlib.suppress(ValueError):
                plain = base64.b64decode(value).decode()
                found |= {plain, plain.partition(":")[2]}
        # What is shorter is no secret, and might be part of any word.
        return tuple(sorted((one for one in found if len(one) >= _LEAST_SECRET), key=len, reverse=True))


def held(name: str, credentials: Credentials, url: str) -> Held:
    """
    The credentials of a registry for its upstream.

    :raises regcache.errors.ConfigError: if there are none for it, or none that could be used.
    """
    origin = Origin.of(url)
    if origin is None:
        raise ConfigError(f"registries.{name}: {url} is no usable upstream.")
    if credentials.certificate and origin.scheme != "https":
        raise ConfigError(f"registries.{name}.client-cert: only an https upstream asks for one, and {url} is none.")
    authorization = credentials.authorization
    if credentials.netrc:
        authorization = _from_netrc(credentials.netrc, origin.host, f"registries.{name}.auth")
    return Held(origin, authorization)


def _from_netrc(path: str, host: str, where: str) -> str:
    try:
        found = netrc.netrc(path).authenticators(host)
    except OSError as error:
        raise ConfigError(f"{where}: {path}: {error.strerror}.") from None
    except netrc.NetrcParseError as error:
        # Its text may quote a password.
        raise ConfigError(f"{where}: {path} cannot be understood from line {error.lineno} on.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not text in UTF-8.") from None
    if found is None:
        raise ConfigError(f"{where}: {path} has no entry for {host}: machine {host} login USER password PASSWORD.")
    try:
        return basic(found[0] or "", found[2] or "")
    except ValueError as error:
        raise ConfigError(f"{where}: the entry for {host} in {path} cannot be used; it wants {error}.") from None


def exposed(credentials: Iterable[Credentials]) -> list[str]:
    """The files with secrets in them that others can read, each as a warning."""
    files = {file: bits for one in credentials for file, bits in one.files}
    found = []
    for file, bits in sorted(files.items()):
        try:
            mode = os.stat(file).st_mode
        except OSError:
            continue
        if mode & bits:
            found.append(f"{file} holds credentials, and others can read it: chmod 600 {file}")
    return found
