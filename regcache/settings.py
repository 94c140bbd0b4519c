"""What can be configured: every option as the command line, the environment, the file and the documents have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from regcache import values

__all__ = ["OPTIONS", "Option"]


@frozen
class Option:
    """
    One option: its name on the command line and in TOML, how it is read, and its help.

    :ivar many: whether it may be repeated.
    """

    name: str
    parse: Callable[[str], Any]
    default: str
    help: str
    many: bool = False
    flag: bool = False

    @property
    def attribute(self) -> str:
        """Its name in :class:`regcache.config.Config`."""
        return self.name.replace("-", "_")


#: Every option, in the order of the help.
OPTIONS = (
    Option("registries", str, "npm,pypi", "What to serve: NAME, NAME=URL or NAME=generic+URL, separated by commas."),
    Option(
        "listen",
        str,
        "tcp:8650 on loopback",
        "A Twisted endpoint, or NAME@ENDPOINT for one registry at the root"
        " of its own port. May be repeated; any replaces the default.",
        many=True,
    ),
    Option(
        "cache-dir",
        values.directory,
        "",
        "Where the cache is. Default: systemd's CACHE_DIRECTORY, else the user's cache.",
    ),
    Option("max-size", values.size, "10G", "The most the cache takes on disk, in bytes (K, M, G, T); 0 for any."),
    Option("min-free", values.size, "1G", "What to leave free on the disk, in bytes (K, M, G, T)."),
    Option(
        "scrub",
        values.optional_period,
        "7d",
        "In what time every stored body is read again, to find what the disk has changed (h, d, w), or off.",
    ),
    Option(
        "max-file-size", values.size, "0", "Larger bodies are passed on, not stored; bytes (K, M, G, T), 0 for any."
    ),
    Option(
        "max-index-size",
        values.positive_size,
        "256M",
        "The largest index page accepted, unpacked, in bytes (K, M, G, T).",
    ),
    Option(
        "memory-cache",
        values.size,
        "64M",
        "What is kept in memory of the answers given last, ready to be given again, in bytes (K, M, G, T); 0 for none.",
    ),
    Option("ttl", values.duration, "1d", "How long an index page answers without its registry (s, m, h, d)."),
    Option(
        "refresh-after",
        values.optional_duration,
        "10m",
        "The age past which a request asks the registry whether an index page is current (s, m, h, d), or off.",
    ),
    Option("negative-ttl", values.duration, "1m", "How long 'there is none' is remembered (s, m, h, d)."),
    Option(
        "upstream-timeout",
        values.positive_duration,
        "5s",
        "The most a client waits for a registry when a stored copy could answer (ms, s, m).",
    ),
    Option(
        "cold-timeout",
        values.positive_duration,
        "14s",
        "The most a client waits for the first byte when nothing is stored (ms, s, m).",
    ),
    Option("idle-timeout", values.positive_duration, "30s", "The longest pause within a registry's answer (ms, s, m)."),
    Option("allow", values.networks, "127.0.0.0/8,::1", "The networks that may use the cache, separated by commas."),
    Option(
        "trust-proxy",
        values.networks,
        "",
        "The reverse proxies whose X-Forwarded-For, -Host, -Proto and PROXY protocol count.",
    ),
    Option(
        "hosts",
        values.host_names,
        "",
        "The host names it answers under, or *. Default: loopback names, the machine's name and public-url's host.",
    ),
    Option("auth", values.file, "", "A file of who may use it, NAME:HASH a line. Default: whoever --allow lets in."),
    Option("public-url", values.optional_url, "", "The URL by which clients reach it, if not the one they ask for."),
    Option("max-connections", values.count, "", "Clients' connections; of one address half. Default: by descriptors."),
    Option("offline", values.truth, "no", "Never contact a registry; what is not stored is answered 504.", flag=True),
    Option("upstream-ca", values.certificates, "", "A PEM file of certificates to trust beside the system's."),
    Option(
        "strict-links",
        values.truth,
        "no",
        "Refuse an index page with links past the cache, to hosts that are not among artifact-hosts.",
        flag=True,
    ),
    Option(
        "client-no-cache",
        values.any_of("ignore", "revalidate"),
        "ignore",
        "What a client's no-cache does: ignore or revalidate.",
    ),
    Option("grace", values.duration, "8s", "How long a stop waits for what is in flight (s, m)."),
    Option("access-log", values.target, "off", "Log requests: off, - for standard output, or a file."),
    Option("access-log-hits", values.truth, "no", "Log hits as well, which are else only counted.", flag=True),
    Option(
        "access-log-format",
        values.any_of("combined", "json"),
        "combined",
        "What a line of it is: combined, as of Apache and nginx with more behind, or json.",
    ),
    Option(
        "access-log-max-size",
        values.size,
        "10M",
        "Its size from which it is rotated, in bytes (K, M, G, T); 0 for never.",
    ),
    Option("access-log-files", values.count, "5", "How many rotated files are kept beside it."),
)
