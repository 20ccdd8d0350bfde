"""Say in one short sentence why MLflow's server could not be reached, and what to look at.

MLflow wraps urllib3's errors into its own and keeps nothing but their text, so the text is what there is to go by.
"""

from __future__ import annotations

import re

#: what the text holds → what people call it; the first that is found counts
_REASONS = (
    (("connection refused",), "connection refused"),
    (("name or service not known", "getaddrinfo", "nameresolutionerror", "nodename nor servname"), "no such host"),
    (("certificate", "sslerror", "ssl:"), "its TLS certificate is not accepted"),
    (("timed out", "timeout"), "no answer in time"),
    (("no route to host", "network is unreachable"), "no route to it"),
    (("connection reset", "remotedisconnected", "connection aborted", "broken pipe"), "it closed the connection"),
)
_STATUS = re.compile(r"(?:error code|status(?: code)?|response code|too many) (\d{3})\b")
_URL = re.compile(r"https?://[^\s'\"/@]*(?:@)?[^\s'\"/]+")
_POOL = re.compile(r"(HTTPS?)Connection(?:Pool)?\(host='([^']+)', port=(\d+)\)")


def unreachable(said: str) -> str | None:
    """The sentence for what an exception says; None where it says something else than that no server answers."""
    found = said.lower()
    reason = next((words for needles, words in _REASONS if any(needle in found for needle in needles)), None)
    where = _where(said)
    if where is None:
        return None
    if reason is not None:
        return f"{where} cannot be reached ({reason}): is MLflow running there, and is tracking.uri right?"
    status = _STATUS.search(found)
    if status is None:
        return None
    if status[1] in ("401", "403"):
        return f"{where} refuses the login ({status[1]}): check MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN"
    return f"{where} answers with error {status[1]}: look into the log of that server" if status[1] >= "500" else None


def _where(said: str) -> str | None:
    pool = _POOL.search(said)
    if pool is not None:
        return f"{pool[1].lower()}://{pool[2]}:{pool[3]}"
    url = _URL.search(said)
    return url[0] if url is not None else None
