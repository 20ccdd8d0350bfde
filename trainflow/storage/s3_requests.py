"""What S3 does in one request and fsspec in several: a listing that begins anywhere, and the deletion of many files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: names in one request to delete; S3 takes no more
_MOST_NAMES = 1000


class S3Requests:
    """Requests of an s3fs file system. Paths are `bucket/key`. Raises what s3fs raises."""

    def __init__(self, filesystem: Any) -> None:
        self._call = filesystem.call_s3

    def listing(self, path: str, *, recursive: bool = True, after: str = "") -> Iterator[dict[str, Any]]:
        """What has a name that begins with `path`, and sorts after `after` where that is given: as fsspec says it. Of a
        listing that is not recursive also the folders. A request for each thousand names."""
        bucket, _, prefix = path.partition("/")
        words: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if not recursive:
            words["Delimiter"] = "/"
        if after:
            words["StartAfter"] = after.partition("/")[2]
        while True:
            page = self._call("list_objects_v2", **words)
            # a server may not know where to begin
            yield from (each for each in _shown(bucket, page) if each["type"] == "directory" or each["name"] > after)
            if not page.get("IsTruncated"):
                return
            words["ContinuationToken"] = page["NextContinuationToken"]

    def first_page(self, path: str) -> list[dict[str, Any]] | None:
        """What has a name that begins with `path`, by one request; None where it does not show everything."""
        bucket, _, prefix = path.partition("/")
        page = self._call("list_objects_v2", Bucket=bucket, Prefix=prefix)
        return None if page.get("IsTruncated") else list(_shown(bucket, page))

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files of one bucket; nothing happens for one that is not there."""
        for first in range(0, len(paths), _MOST_NAMES):
            some = [path.partition("/") for path in paths[first : first + _MOST_NAMES]]
            names = [{"Key": key} for _, _, key in some]
            answer = self._call("delete_objects", Bucket=some[0][0], Delete={"Objects": names, "Quiet": True})
            for refused in answer.get("Errors", ()):
                kind = PermissionError if refused.get("Code") == "AccessDenied" else OSError
                raise kind(f"{refused.get('Key')}: {refused.get('Code')}: {refused.get('Message')}")


def _shown(bucket: str, page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for folder in page.get("CommonPrefixes", ()):
        yield {"name": f"{bucket}/{folder['Prefix'].rstrip('/')}", "type": "directory", "size": 0}
    for file in page.get("Contents", ()):
        yield {**file, "name": f"{bucket}/{file['Key']}", "type": "file", "size": file["Size"]}


def s3_requests(filesystem: Any, driver: str) -> S3Requests | None:
    """The requests of a file system; None where it is another one, or shows versions of files."""
    if driver not in ("s3", "s3a") or not hasattr(filesystem, "call_s3") or filesystem.version_aware:
        return None
    return S3Requests(filesystem)
