"""One POST to another system, and what its answer means for who has to deliver. No secret is in what is said of it."""

from __future__ import annotations

from collections.abc import Mapping

from trainflow.errors import DeliveryRefused
from trainflow.observability.redaction import redact_text

#: the content is what is wrong: the same again gets the same answer
_OF_CONTENT = frozenset({400, 409, 413, 415, 422})


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
    compress: bool = False,
    quotes_answer: bool = True,
) -> None:
    """Send it, and return when it was answered with 2xx. Raises DeliveryRefused, which begins with the host.

    `quotes_answer` False: what is answered may repeat a path that is a secret, and is not told.
    """
    # loaded when there is something to tell: ssl and http cost more than the rest of an idle engine's thread
    import http.client
    import urllib.error
    import urllib.request
    from urllib.parse import urlsplit

    given = {"User-Agent": "trainflow", **headers}
    if compress:
        import gzip

        body, given = gzip.compress(body), {**given, "Content-Encoding": "gzip"}
    host = "?"
    try:
        host = urlsplit(url).hostname or "?"
        request = urllib.request.Request(url, data=body, headers=given, method="POST")
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        said = redact_text(error.read(300).decode(errors="replace")).strip() if quotes_answer else ""
        error.close()
        reason = f"{host} answered {error.code}{f': {said}' if said else ''}"
        raise DeliveryRefused(reason, retry=error.code not in _OF_CONTENT) from None
    except OSError as error:
        told = " ".join(redact_text(str(getattr(error, "reason", error))).split())
        raise DeliveryRefused(f"{host} cannot be reached: {told}") from None
    except (ValueError, http.client.HTTPException) as error:
        # their texts repeat parts of the address
        raise DeliveryRefused(f"{host} failed: {type(error).__name__}") from None
