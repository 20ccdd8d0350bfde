"""Cut secrets out of what is shown, kept or sent elsewhere. Pure; never raises.

A key is judged by its words, not by substrings: `max_tokens`, `tokenizer` and `primary_key` are hyperparameters,
`hf_token` and `access_key` are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: a word that makes the whole key a secret, wherever it stands
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"}
    | {"authorization", "apikey", "accesskey", "sas", "webhook"}
)
#: `…_key` is a secret only after one of these, or alone
_KEY_OWNERS = frozenset(
    {"api", "access", "private", "secret", "account", "signing", "encryption", "ssh", "storage", "shared", "client"}
    | {"auth"}
)
#: `…_token` is a secret except after one of these, which name symbols of a vocabulary
_VOCABULARY = frozenset({"pad", "eos", "bos", "unk", "mask", "sep", "cls", "start", "end", "special", "image", "per"})
#: everything below these keys is handed to a store as it is, and may be anything
_SECRET_TREES = frozenset({"storage_options", "client_kwargs", "connection_string", "dsn"})

# Texts may be megabytes without a space (an encoded image in an exception), so none of these may take time in the
# square of the length: a run of letters is looked at once, from where it begins, and a value only when it is cut out.
_URL_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}://[^\s/:@\"']*):([^\s/\"']+)@")
_ASSIGNMENT = re.compile(
    r"(?<![A-Za-z0-9_.\-])[0-9.\-]*+([A-Za-z_][A-Za-z0-9_.\-]*+)([\"']?\s?[=:]\s?[\"']?)(?=[^\s,;&\"'}])"
)
_VALUE = re.compile(r"[^\s,;&\"'}]+")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~\-]{8,}")


def is_secret_key(key: str) -> bool:
    """Whether a value stored under `key` is a secret."""
    if key.lower() in _SECRET_TREES:
        return True
    words = [word.lower() for word in _WORDS.findall(key)]
    if any(word in _SECRET_WORDS for word in words):
        return True
    if not words:
        return False
    before = words[-2] if len(words) > 1 else None
    if words[-1] == "key":
        return before is None or before in _KEY_OWNERS
    return words[-1] == "token" and before not in _VOCABULARY


def redact(value: Any, key: str = "") -> Any:
    """A copy of a JSON-like value with `***` for every secret: by the name of its key, or inside a text.

    None stays None: that a secret is not set is no secret.
    """
    if value is None:
        return None
    if key and is_secret_key(key):
        return MASK
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """`text` without passwords of URLs (`scheme://user:***@host`), `secret=…` assignments and bearer tokens."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    if "=" in text or ":" in text:
        text = _redact_assignments(text)
    if "Bearer" in text or "Basic" in text:
        text = _BEARER.sub(rf"\1 {MASK}", text)
    return text


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
    """A text of somebody else's (the message of an exception) as it may be kept and shown: without secrets, with at
    most about `longest` characters of its beginning and end, and nothing in it that a database cannot hold."""
    if len(text) > longest:
        left_out = len(text) - longest
        end = longest // 4
        text = f"{text[: longest - end]} … ({left_out} characters left out) … {text[-end:]}"
    # undecodable bytes of a file's name are lone surrogates in Python, which no encoding carries
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    return redact_text(text)
