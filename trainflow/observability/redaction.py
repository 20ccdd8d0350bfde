"""Mask secrets in what is shown, kept or sent elsewhere: the one masker of the package. Pure; never raises.

A secret is known by the name of its key, by its shape (tokens of well-known services, private keys, passwords in
URLs), or because it is given as a value to hide. A key is judged by its words, not by substrings: `max_tokens`,
`tokenizer` and `primary_key` are hyperparameters, `hf_token` and `access_key` are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from trainflow.errors import InputError
from trainflow.humanize import agreeing

MASK = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: a word that makes the whole key a secret, wherever it stands
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"}
    | {"authorization", "apikey", "accesskey", "sas", "webhook"}
)
#: `…_key` is a secret only after one of these; alone it names a column or a metric as often as a credential
_KEY_OWNERS = frozenset(
    {"api", "access", "private", "secret", "account", "signing", "encryption", "ssh", "storage", "shared", "client"}
    | {"auth"}
)
#: `…_token` is a secret except after one of these, which name symbols of a vocabulary
_VOCABULARY = frozenset({"pad", "eos", "bos", "unk", "mask", "sep", "cls", "start", "end", "special", "image", "per"})
#: values to hide that are shorter are words like "on": masking them would only make text unreadable
_SHORTEST_VALUE = 4
#: options of a store that say no more than where it is, and who asks: without it no message could name a wrong one
_PUBLIC_OPTIONS = frozenset({"region", "region_name", "account_name", "username", "driver"})
#: everything below these keys is handed to a store as it is, and may be anything
_SECRET_TREES = frozenset({"storage_options", "client_kwargs", "connection_string", "dsn"})

# Texts may be megabytes without a space (an encoded image in an exception), so none of these may take time in the
# square of the length: a run of letters is looked at once, from where it begins, and a value only when it is cut out.
_URL_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}://[^\s/:@\"']*):([^\s/\"']+)@")
_ASSIGNMENT = re.compile(
    r"(?<![A-Za-z0-9_.\-])[0-9.\-]*+([A-Za-z_][A-Za-z0-9_.\-]*+)([\"']?\s?[=:]\s?[\"']?)(?=[^\s,;&\"'}])"
)
_VALUE = re.compile(r"[^\s,;&\"'}]+")
#: tokens that say by their beginning whose they are. Each alternative begins with letters of its own, so that the
#: search looks only where one of them stands
_SHAPES = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_\-]{20,255}"  # GitHub, GitLab
    r"|AKIA[A-Z0-9]{16}|ASIA[A-Z0-9]{16}"  # AWS
    r"|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,}"  # Google
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,}|xapp-[A-Za-z0-9\-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]+"  # Slack
    r"|hf_[A-Za-z0-9]{30,255}|dapi[0-9a-f]{32}"  # Hugging Face, Databricks
    r"|sk-(?:proj|ant|svcacct|admin)-[A-Za-z0-9_\-]{20,}|sk-[A-Za-z0-9]{32,}"  # APIs of language models
    r"|sk_live_[A-Za-z0-9]{16,}"  # Stripe
    r"|tf(?:claim|token)_[A-Za-z0-9_\-]{20,}"  # claims and tokens of attempts
    r"|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_\-]{50,}"
    # JSON Web Token; a header of certificates takes 4 KB
    r"|eyJ[A-Za-z0-9_\-]{8,4096}+\.eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s\\:,]|-(?!----))*+"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~\-]{8,}")


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Tell whether a value stored under `key` is a secret."""
    if key.lower() in _SECRET_TREES:
        return True
    words = [word.lower() for word in _WORDS.findall(key)]
    if any(word in _SECRET_WORDS for word in words):
        return True
    if not words:
        return False
    before = words[-2] if len(words) > 1 else None
    if words[-1] == "key":
        return before in _KEY_OWNERS
    return words[-1] == "token" and before not in _VOCABULARY


def redact(value: Any, key: str = "") -> Any:
    """Copy a JSON-like value with `***` for every secret: by the name of its key, or inside a text.

    None and booleans stay: that a secret is not set, or is used, is none.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if key and is_secret_key(key):
        return MASK
    # what JSON has is known by its very type: others are asked what they are, which takes longer
    if kind is int or kind is float:
        return value
    if kind is dict:
        return {name: redact(item, name if type(name) is str else str(name)) for name, item in value.items()}
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def secret_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield where a JSON-like value holds secrets, as dotted paths: `params.hf_token`, `urls.0`."""
    key = path.rpartition(".")[2]
    if not isinstance(value, Mapping | list | tuple) or (key and is_secret_key(key)):
        if redact(value, key) != value:
            yield path
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, item in items:
        yield from secret_paths(item, f"{path}.{name}" if path else str(name))


def secret_values(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts of a JSON-like value that stand under the key of a secret. Absolute paths are left out: they say
    where a secret lies. Of options of a store only those count that have a secret's key themselves."""
    if isinstance(value, str):
        if is_secret_key(key) and not value.startswith("/"):
            yield value
    elif isinstance(value, Mapping):
        whole = is_secret_key(key) and key.lower() not in _SECRET_TREES
        for name, item in value.items():
            yield from secret_values(item, key if whole else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secret_values(item, key)


def check_no_secrets(value: Any, what: str, path: str = "") -> None:
    """Refuse a value that would be kept in the database or the ledger as it is. Raises InputError naming each place."""
    found = list(secret_paths(value, path))
    if found:
        raise InputError(
            f"{what}: {', '.join(found)} {agreeing(len(found), 'looks', 'look')} like a secret by name or shape, and "
            "would be kept and listed with the run; read it from the environment where it is used"
        )


#: what stands in JSON that may hold a secret, in small letters; everything else is passed on unread
_TRACES = (
    *(b"pass", b"pwd", b"secret", b"credential", b"authori", b"key", b"token", b"dsn", b"sas", b"webhook"),
    *(b"_options", b"_kwargs", b"connection", b"@", b"bearer ", b"basic "),
    *(b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"akia", b"asia", b"aiza", b"ya29."),
    *(b"xox", b"xapp-", b"slack", b"hf_", b"dapi", b"sk-", b"sk_live", b"npm_", b"pypi-", b"eyj"),
)


def may_hold_secrets(encoded: bytes) -> bool:
    """Tell quickly whether a JSON text is worth `redact`: False only where that would change nothing."""
    small = encoded.lower()
    return any(trace in small for trace in _TRACES)


def texts_of(options: Any) -> Iterator[str]:
    """Yield every text in options of a store or of a program that may be a secret: URLs are none by themselves."""
    if isinstance(options, str):
        if "://" not in options:
            yield options
    elif isinstance(options, Mapping):
        for name, inner in options.items():
            if name not in _PUBLIC_OPTIONS:
                yield from texts_of(inner)
    elif isinstance(options, list | tuple):
        for inner in options:
            yield from texts_of(inner)


def redact_text(text: str, hide: Iterable[str] = ()) -> str:
    """Mask in `text`: passwords of URLs (`scheme://user:***@host`), `secret=…` assignments, bearer tokens, tokens of
    well-known shapes, private keys, and the values in `hide` that have at least four characters."""
    if hide:
        for value in sorted((each for each in hide if len(each) >= _SHORTEST_VALUE), key=len, reverse=True):
            text = text.replace(value, MASK)
    text = _SHAPES.sub(_unless_inside_a_word, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    if "=" in text or ":" in text:
        text = _redact_assignments(text)
    if "Bearer" in text or "Basic" in text:
        text = _BEARER.sub(rf"\1 {MASK}", text)
    return text


def _unless_inside_a_word(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return match[0] if before.isalnum() else MASK


def _redact_assignments(text: str) -> str:
    kept, position = [], 0
    while match := _ASSIGNMENT.search(text, position):
        name, sign = match.groups()
        value_start = match.end()
        # "key: the partition …" is prose; a lone `key` is a secret only as the key of a mapping, see `redact`
        prose = name.lower() in ("key", "token", "authorization") and "=" not in sign
        kept.append(text[position:value_start])
        if is_secret_key(name) and not prose:
            kept.append(MASK)
            value = _VALUE.match(text, value_start)
            position = value.end() if value else value_start
        else:  # go on inside the value: "https" is a name too, and its value holds the query
            position = value_start
    kept.append(text[position:])
    return "".join(kept)


def presentable(text: str, longest: int) -> str:
    """Make a foreign text (the message of an exception) fit to be kept and shown: without secrets, with at most about
    `longest` characters of its beginning and end, and nothing in it that a database cannot hold."""
    if len(text) > longest:
        left_out = len(text) - longest
        end = longest // 4
        text = f"{text[: longest - end]} … ({left_out} characters left out) … {text[-end:]}"
    # undecodable bytes of a file's name are lone surrogates in Python, which no encoding carries
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    return redact_text(text)
