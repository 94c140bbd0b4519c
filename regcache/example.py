"""
The example of a configuration file: ``python -m regcache.example`` prints ``docs/examples/regcache.toml``.

Made from the table of options, so that it names every key, says what it means, and has its default.
"""

from __future__ import annotations

import sys
import textwrap

from attrs import frozen

from regcache.settings import OPTIONS, Option

__all__ = ["KEYS", "Key", "example"]

_WIDTH = 100
_HEAD = """\
Everything that can be configured. Each line that begins with # and a key is that key's default: take the # away \
from what you change, and leave the rest. Ask before a restart whether it is sound:

    regcache serve --check-config --config FILE

A size without a letter is bytes, with K, M, G or T in powers of 1024. A duration without a letter \
is seconds; others end with ms, s, m, h, d or w. Lists may be text with commas, or TOML's own."""
_TABLES = """\
A registry with options of its own has a table. Every type knows the keys of the first; a table's name is the \
path below which it is served. Once there is a table, what is served is the tables of the file and no others: \
keep the header of each that you want, also of one without options."""
_LIST = "In a file that has no tables, which take its place: such as {}. Default: npm,pypi."
#: Defaults that the help puts into words.
_IN_TOML = {"listen": "[]", "cache-dir": '"~/.cache/regcache"'}


@frozen
class Key:
    """
    A key of a registry's table.

    :ivar help: what it means.
    :ivar default: as TOML has it; empty if no value means the same as its absence.
    :ivar sample: a value, where there is no default to show.
    """

    help: str
    default: str = ""
    sample: str = ""


#: The keys of every table, in the order of the example.
KEYS = {
    "type": Key("What kind of registry it is. Default: the name of the table.", '"pypi"'),
    "url": Key(
        "The upstream, or a list of several in the order to ask them. Default: the type's public one.",
        sample='"https://packages.example/simple/"',
    ),
    "artifact-hosts": Key(
        "Further hosts that linked files may come from: host, host:port or *.domain. They are contacted.", "[]"
    ),
    "ttl": Key("As ttl above, for this registry (s, m, h, d). Default: what is said above.", '"1d"'),
    "refresh-after": Key("As refresh-after above (s, m, h, d, or off). Default: what is said above.", '"10m"'),
    "negative-ttl": Key("As negative-ttl above (s, m, h, d). Default: what is said above.", '"1m"'),
    "strict-links": Key("As strict-links above. Default: what is said above.", "false"),
    "names": Key(
        "Patterns of names of packages that are this registry's alone; no other of its type is asked for them.", "[]"
    ),
    "auth": Key(
        "What opens the upstream: basic USER:PASSWORD, bearer TOKEN, token TOKEN, env:VARIABLE or netrc."
        " Default: nothing is sent.",
        sample='"env:CORP_TOKEN"',
    ),
    "client-cert": Key(
        "The PEM file of a certificate to show the upstream. Default: none.", sample='"/etc/regcache/client.pem"'
    ),
    "client-key": Key(
        "The PEM file of its key. Default: that of the certificate.", sample='"/etc/regcache/client.key"'
    ),
    "shared": Key(
        "Where the auth above names a file: whether those who do not say who they are may read it all the same.",
        "false",
    ),
    "readers": Key(
        "Where the auth above names a file: the names in it that may read this registry. Default: all of them.", "[]"
    ),
    "freshness": Key(
        'Whose word counts for how long things are fresh: "forced" for the lifetimes above, "upstream" for what the'
        ' upstream says of each answer. The next five keys count only with "upstream".',
        '"forced"',
    ),
    "methods": Key("Further methods to pass on, in capitals; GET and HEAD always are.", "[]"),
    "forward-authorization": Key("Whether clients' own Authorization goes on to the upstream.", "false"),
    "client-directives": Key("Whether what clients demand by Cache-Control counts.", "false"),
    "targeted": Key(
        "The fields of answers that speak to this cache in place of Cache-Control (RFC 9213).", '["CDN-Cache-Control"]'
    ),
    "stale-if-error": Key(
        "For how long past its lifetime an answer is used when the upstream gives none, or off. Default: for ever,"
        " unless it forbids that.",
        sample='"7d"',
    ),
}
#: Those that only one type knows, by the type.
OWN_KEYS = {
    "pypi": {
        "files": Key(
            "The URL below which the index keeps its files as packages/… Default: the public index's.",
            sample='"https://files.example/"',
        )
    },
    "go": {
        "sumdb": Key("The name of the checksum database, or off. Default: the public one.", sample='"sums.example"')
    },
}


def _commented(text: str) -> str:
    paragraphs = [line if line.startswith(" ") else textwrap.fill(line, _WIDTH - 2) for line in text.splitlines()]
    return "\n".join(f"# {line}".rstrip() for line in "\n".join(paragraphs).splitlines())


def _default(option: Option) -> str:
    if option.flag:
        return "true" if option.parse(option.default) else "false"
    return _IN_TOML.get(option.name, f'"{option.default}"')


def _option(option: Option) -> str:
    told = _commented(option.help)
    if option.name == "registries":
        # TOML has room for the text or for the tables, not for both.
        return f"{told}\n{_commented(_LIST.format(f'registries = {_default(option)}'))}"
    return f"{told}\n#{option.name} = {_default(option)}"


def _key(name: str, key: Key) -> str:
    told = _commented(key.help)
    return f"{told}\n#{name} = {key.default}" if key.default else f"{told}\n# Such as: {name} = {key.sample}"


def example() -> str:
    """The file, with a line end at its end."""
    parts = [_commented(_HEAD), *map(_option, OPTIONS), _commented(_TABLES), "#[registries.npm]", "#[registries.pypi]"]
    parts += [_key(name, key) for name, key in {**KEYS, **OWN_KEYS["pypi"]}.items()]
    for kind, keys in OWN_KEYS.items():
        if kind != "pypi":
            parts += [f"# Only in a table [registries.{kind}], or of that type:\n{_key(*one)}" for one in keys.items()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(example())
