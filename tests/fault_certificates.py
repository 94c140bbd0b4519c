"""Certificates for servers on loopback, from an authority of the tests' own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

__all__ = ["authority", "server_context"]

_DAY = timedelta(days=1)
_PEM = serialization.Encoding.PEM


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _made(
    host: str, signer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None, from_day: int, to_day: int
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    issuer, signing = signer or (_name(host), key)
    made = (
        x509.CertificateBuilder(issuer, _name(host), key.public_key(), x509.random_serial_number())
        .not_valid_before(now + from_day * _DAY)
        .not_valid_after(now + to_day * _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=host == "authority.test", path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )
    return made, key


@cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    return _made("authority.test", None, -400, 400)


def authority(directory: Path) -> str:
    """The path of the authority's own certificate, to be trusted."""
    path = directory / "authority.pem"
    path.write_bytes(_authority()[0].public_bytes(_PEM))
    return str(path)


@cache
def server_context(kind: str, host: str) -> SSL.Context:
    """
    What a server of that host shows.

    :param kind: ``good``, ``expired``, ``self-signed``, or ``wrong host``.
    """
    certificate, key = _authority()
    signer = None if kind == "self-signed" else (certificate.subject, key)
    days = (-300, -2) if kind == "expired" else (-1, 30)
    shown, secret = _made("elsewhere.test" if kind == "wrong host" else host, signer, *days)
    context = SSL.Context(SSL.TLS_METHOD)
    # The first versions of OpenSSL's binding take nothing but their own.
    context.use_certificate(crypto.X509.from_cryptography(shown))
    context.use_privatekey(crypto.PKey.from_cryptography_key(secret))
    return context
