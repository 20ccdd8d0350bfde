"""The buckets of an account, opened; and opened anew where the service says that one is in another region, or refuses
credentials that have been replaced since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.errors import StoreRefusal

_PARTS_ARE_TRIED = {
    "max_retries": 6,
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=15), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}
_OF_REGIONS = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
#: what services say of credentials that have ended, are not theirs any more, or were read while they were written
_OF_CREDENTIALS = frozenset(
    {
        "AuthenticationFailed",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidAuthenticationInfo",
        "InvalidClientTokenId",
        "InvalidToken",
        "InvalidTokenId",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UNAUTHENTICATED",
    }
)


class GivenCredentials:
    """What fetches credentials for one opened bucket, and those that it has."""

    def __init__(self, fetch: Callable[[], Mapping[str, Any]]) -> None:
        self._fetch = fetch
        self._given: Mapping[str, Any] | None = None

    def __call__(self) -> Mapping[str, Any]:
        self._given = self._fetch()
        return self._given

    def are_replaced(self) -> bool:
        """Whether others are to be had than the bucket was opened with."""
        forget = getattr(self._fetch, "forget", None)
        if forget is not None:
            forget()
        try:
            now = self._fetch()
        except Exception:  # what was refused is said, not this
            return False
        return self._given is not None and _keys(now) != _keys(self._given)


class OpenedStore(NamedTuple):
    """A bucket that requests can be made of. `credentials`: None where obstore has them itself."""

    store: Any
    credentials: GivenCredentials | None


class OpenedStores:
    """Opens the buckets of an account, each once for requests and once for uploads in parts."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._opened: dict[tuple[str, bool], OpenedStore] = {}
        self._regions: dict[str, str] = {}

    def get(self, bucket: str, in_parts: bool) -> OpenedStore:
        """Open a bucket, unless it is. `in_parts`: for an upload, whose parts are tried again by obstore."""
        found = self._opened.get((bucket, in_parts))
        if found is None:
            found = self._opened[bucket, in_parts] = self._open(bucket, in_parts)
        return found

    def opens_otherwise(self, bucket: str, used: OpenedStore, error: StoreRefusal) -> bool:
        """Whether a bucket that has refused a request is opened otherwise from now on: in the region that was named, or
        with credentials that have replaced its own. It has done nothing, and may be asked again."""
        if self._found_region(bucket, error) or (_is_of_credentials(error) and _are_replaced(used.credentials)):
            for in_parts in (False, True):
                self._opened.pop((bucket, in_parts), None)
            return True
        return False

    def explain(self, bucket: str, error: StoreRefusal) -> StoreRefusal:
        """What is raised of a bucket that refuses a request also where it has said that it is."""
        if error.error_code not in _OF_REGIONS or bucket not in self._regions:
            return error
        text = f"the bucket is in the region {self._regions[bucket]}, and the endpoint is not"
        return StoreRefusal(text, status=error.status, code=error.error_code)

    def _found_region(self, bucket: str, error: StoreRefusal) -> bool:
        find = self._buckets.region_of
        if find is None or bucket in self._regions or error.error_code not in _OF_REGIONS:
            return False
        region = find(bucket, error)
        if region:
            self._regions[bucket] = region
        return bool(region)

    def _open(self, bucket: str, in_parts: bool) -> OpenedStore:
        import obstore.store

        words = self._buckets
        config = {**words.config, **words.of_bucket(bucket)}
        if bucket in self._regions:
            config["region"] = self._regions[bucket]
        credentials = None if words.credentials is None else GivenCredentials(words.credentials)
        opened = getattr(obstore.store, words.kind)(
            bucket,
            config=config,
            client_options=words.client,
            credential_provider=credentials,
            # what is asked in one request is asked again by the store that uses this; parts are not seen from there
            retry_config=_PARTS_ARE_TRIED if in_parts else {"max_retries": 0},
        )
        return OpenedStore(opened, credentials)


def _is_of_credentials(error: StoreRefusal) -> bool:
    """Whether the service refuses the credentials. Of its answer to HEAD nothing is known but the status."""
    return error.error_code in _OF_CREDENTIALS or (not error.error_code and error.status in (400, 401, 403))


def _are_replaced(credentials: GivenCredentials | None) -> bool:
    return credentials is not None and credentials.are_replaced()


def _keys(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "expires_at"}
