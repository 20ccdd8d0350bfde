"""DAGs, their versions, and files that give none."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from trainflow.errors import DagNotFound, StateError
from trainflow.identifiers import did_you_mean
from trainflow.messages.workload import DagSource, ParseProblem, ParseResult
from trainflow.metadata.bound_parameters import bound_columns, bound_values
from trainflow.metadata.models import DagTable, DagVersionTable, ImportProblemTable
from trainflow.serialization.document import DagDocument, decode, version_of

DAG = DagTable.table
VERSION = DagVersionTable.table
PROBLEM = ImportProblemTable.table
#: the override that makes a file give the DAGs of another branch
BRANCH = "branch"


def store(connection: Connection, document: DagDocument, data: bytes, source: DagSource, now: datetime) -> int:
    """Make `document` the current version of its DAG; the same content is the same version. Returns its id."""
    digest = version_of(data)
    version = connection.execute(_SAME, {"dag": document.dag_id, "digest": digest}).one_or_none()
    source_value = msgspec.to_builtins(source)
    if version is None:
        version_id = _insert_version(connection, document, data, digest, source_value, now)
    else:
        version_id = version.id
        if version.source != source_value:
            connection.execute(update(VERSION).where(VERSION.c.id == version_id).values(source=source_value))
    _upsert_dag(connection, document, version_id, source, now)
    return version_id


_SAME = select(VERSION.c.id, VERSION.c.source).where(
    VERSION.c.dag_id == bindparam("dag"), VERSION.c.digest == bindparam("digest")
)


def _insert_version(
    connection: Connection, document: DagDocument, data: bytes, digest: str, source: Any, now: datetime
) -> int:
    number = connection.execute(_NEXT_NUMBER, {"dag": document.dag_id}).scalar_one()
    result = connection.execute(
        _INSERT_VERSION,
        {
            "dag_id": document.dag_id,
            "number": number,
            "digest": digest,
            "document": data.decode(),
            "source": source,
            "created_at": now,
        },
    )
    return int(result.inserted_primary_key[0])  # type: ignore[index]


_NEXT_NUMBER = select(func.coalesce(func.max(VERSION.c.number), 0) + 1).where(VERSION.c.dag_id == bindparam("dag"))
_INSERT_VERSION = insert(VERSION)


def _upsert_dag(
    connection: Connection, document: DagDocument, version_id: int, source: DagSource, now: datetime
) -> None:
    values = {
        "path": source.path,
        "version_id": version_id,
        "max_active_runs": document.max_active_runs,
        "parsed_at": now,
        "missing_since": None,
    }
    if connection.execute(_UPDATE_DAG, {"k_dag": document.dag_id, **bound_values(values)}).rowcount == 0:
        new = {"dag_id": document.dag_id, "is_paused": document.is_paused_upon_creation, **values}
        connection.execute(_INSERT_DAG, new)


_READ_FROM_FILES = ("path", "version_id", "max_active_runs", "parsed_at", "missing_since")
_UPDATE_DAG = update(DAG).where(DAG.c.dag_id == bindparam("k_dag")).values(bound_columns(DAG, _READ_FROM_FILES))
_INSERT_DAG = insert(DAG)


def store_result(
    connection: Connection,
    source: DagSource,
    result: ParseResult,
    now: datetime,
    *,
    is_there: Callable[[str], bool],
) -> ParseProblem | None:
    """Keep what came out of a file; what is wrong with it. A problem leaves the versions that are there: runs under way
    go on with them. That another file (of those of which `is_there` is true) defines one of the DAGs is a problem too:
    the two would take turns. A problem with overrides that are not in force is for the person who gave them: the file
    itself may be good.
    """
    problem = result.problem
    if problem is None:
        for parsed in result.dags:
            other = defined_by(connection, parsed.dag_id)
            if other is not None and other != source.path and is_there(other):
                message = (
                    f"{source.path}: DAG '{parsed.dag_id}' is defined in {other} already: give it another name in "
                    "one of the two files, or delete one of them"
                )
                problem = DefinedTwice(message, path=source.path, other=other)
                break
    if problem is not None:
        if not source.overrides or source.overrides == overrides_of(connection, source.path):
            store_problem(connection, source.path, problem, now)
        return problem
    forget_problem(connection, source.path)
    now = _after_last_reading(connection, source.path, now)
    for parsed in result.dags:
        data = bytes(parsed.document)
        store(connection, decode(data), data, source, now)
    present = {parsed.dag_id for parsed in result.dags}
    mark_missing(connection, source.path, present | _of_other_branches(connection, source), now)
    return None


def _after_last_reading(connection: Connection, path: str, now: datetime) -> datetime:
    """The moment of a reading, which is later than that of any before it: a clock that is set back, or another host's
    that is ahead, does not have the file be what it was read with before."""
    last = connection.execute(_LAST_READ, {"path": path}).scalar()
    return now if last is None or last < now else last + timedelta(microseconds=1)


def _of_other_branches(connection: Connection, source: DagSource) -> set[str]:
    """The DAGs that this file gives when it is read for another branch: this time it was not asked for them."""
    branch = source.overrides.get(BRANCH)
    rows = connection.execute(_SOURCES_OF_PATH, {"path": source.path})
    return {row.dag_id for row in rows if row.source.get("overrides", {}).get(BRANCH) != branch}


class DefinedTwice(ParseProblem, frozen=True):
    """A file defines a DAG that the file `other` defines already."""

    other: str = ""


def defined_by(connection: Connection, dag_id: str) -> str | None:
    """The file that defines a DAG now."""
    return connection.execute(select(DAG.c.path).where(DAG.c.dag_id == dag_id, DAG.c.missing_since.is_(None))).scalar()


def forget_file(connection: Connection, path: str, now: datetime) -> None:
    """The file is gone: so are its DAGs and what was wrong with it."""
    mark_missing(connection, path, [], now)
    forget_problem(connection, path)


def mark_missing(connection: Connection, path: str, present: Collection[str], now: datetime) -> None:
    """DAGs that `path` defined and does not define any more."""
    connection.execute(
        update(DAG)
        .where(DAG.c.path == path, DAG.c.dag_id.not_in(list(present)), DAG.c.missing_since.is_(None))
        .values(missing_since=now)
    )


def get(connection: Connection, dag_id: str) -> Row[Any]:
    """The row of a DAG. Raises DagNotFound, naming near matches."""
    row = connection.execute(_BY_ID, {"dag": dag_id}).one_or_none()
    if row is None:
        known = list(connection.execute(select(DAG.c.dag_id).order_by(DAG.c.dag_id)).scalars())
        raise DagNotFound(f"no DAG is called '{dag_id}'{did_you_mean(dag_id, known, 'known')}")
    return row


def lock(connection: Connection, dag_id: str) -> Row[Any]:
    """The row of a DAG; no other process creates or starts runs of it before this transaction ends. Raises
    DagNotFound."""
    return ask_lock(connection, dag_id)()


def ask_lock(connection: Connection, dag_id: str) -> Callable[[], Row[Any]]:
    """Like `lock`: call what is returned for the answer."""
    asked = connection.execute(_BY_ID_LOCKED, {"dag": dag_id})

    def answer() -> Row[Any]:
        row = asked.one_or_none()
        return get(connection, dag_id) if row is None else row

    return answer


_BY_ID = select(DAG).where(DAG.c.dag_id == bindparam("dag"))
_BY_ID_LOCKED = _BY_ID.with_for_update()


def params_of(connection: Connection, version_id: int) -> dict[str, dict[str, Any]]:
    """The params of a version: name → JSON schema. Reads nothing else of the document."""
    return _PARAMS.decode(connection.execute(_DOCUMENT, {"version": version_id}).scalar_one()).params


def ask_current_params(connection: Connection, dag_id: str) -> Callable[[], dict[str, dict[str, Any]]]:
    """Like `params_of`, for the current version of a DAG: call what is returned for the answer."""
    asked = connection.execute(_CURRENT_DOCUMENT, {"dag": dag_id})
    return lambda: _PARAMS.decode(asked.scalar_one()).params


_DOCUMENT = select(VERSION.c.document).where(VERSION.c.id == bindparam("version"))
_CURRENT_DOCUMENT = (
    select(VERSION.c.document).join(DAG, DAG.c.version_id == VERSION.c.id).where(DAG.c.dag_id == bindparam("dag"))
)


def digest_of(connection: Connection, version_id: int) -> str:
    """The digest of a version, which names what it says."""
    return str(connection.execute(_DIGEST, {"version": version_id}).scalar_one())


_DIGEST = select(VERSION.c.digest).where(VERSION.c.id == bindparam("version"))


class _Params(msgspec.Struct, frozen=True):
    params: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


_PARAMS: msgspec.json.Decoder[_Params] = msgspec.json.Decoder(_Params)


def version(connection: Connection, version_id: int) -> Row[Any]:
    """The row of a version."""
    return connection.execute(select(VERSION).where(VERSION.c.id == version_id)).one()


def everything(connection: Connection) -> list[Row[Any]]:
    """Every DAG with the number and document of its version."""
    return list(
        connection.execute(
            select(DAG, VERSION.c.number.label("version_number"), VERSION.c.document, VERSION.c.source)
            .join(VERSION, VERSION.c.id == DAG.c.version_id)
            .order_by(DAG.c.dag_id)
        )
    )


def of_path(connection: Connection, path: str) -> list[str]:
    """Ids of the DAGs a file gave when it was read last: for one branch."""
    return list(connection.execute(_OF_PATH, {"path": path}).scalars())


def of_source(connection: Connection, source: DagSource) -> list[str]:
    """Ids of the DAGs that a file gives for the branch it is read for, whichever another process has it read for
    meanwhile."""
    branch = source.overrides.get(BRANCH)
    rows = connection.execute(_SOURCES_OF_PATH, {"path": source.path}).all()
    found = [row.dag_id for row in rows if row.source.get("overrides", {}).get(BRANCH) == branch]
    return found or of_path(connection, source.path)  # `branch` may name the one that the file itself trains


_SOURCES_OF_PATH = (
    select(DAG.c.dag_id, VERSION.c.source)
    .join(VERSION, VERSION.c.id == DAG.c.version_id)
    .where(DAG.c.path == bindparam("path"), DAG.c.missing_since.is_(None))
    .order_by(DAG.c.dag_id)
)


_LAST_READ = select(func.max(DAG.c.parsed_at)).where(DAG.c.path == bindparam("path"), DAG.c.missing_since.is_(None))
_OF_PATH = (
    select(DAG.c.dag_id)
    .where(
        DAG.c.path == bindparam("path"),
        DAG.c.missing_since.is_(None),
        DAG.c.parsed_at == _LAST_READ.scalar_subquery(),
    )
    .order_by(DAG.c.dag_id)
)


def of_every_branch(connection: Connection, path: str) -> list[str]:
    """Ids of the DAGs a file gives, for whichever branch it is read."""
    return list(
        connection.execute(
            select(DAG.c.dag_id).where(DAG.c.path == path, DAG.c.missing_since.is_(None)).order_by(DAG.c.dag_id)
        ).scalars()
    )


class Versions:
    """Documents and sources by version. What a version says never changes, so it is decoded once for each owner; the
    file that says it may be another one some day."""

    def __init__(self) -> None:
        self._documents: dict[int, DagDocument] = {}
        self._sources: dict[int, DagSource] = {}

    def get(self, connection: Connection, version_id: int) -> tuple[DagDocument, DagSource]:
        """Document and source of a version."""
        if version_id not in self._documents:
            text = connection.execute(_DOCUMENT, {"version": version_id}).scalar_one()
            try:
                self._documents[version_id] = decode(text)
            except msgspec.MsgspecError as error:
                raise StateError(
                    f"version {version_id} of its DAG was written by another version of trainflow, and cannot be read "
                    f"({error}): start the pipeline again, it goes on from its last checkpoint"
                ) from None
        if version_id not in self._sources:
            source = connection.execute(_SOURCE, {"version": version_id}).scalar_one()
            self._sources[version_id] = msgspec.convert(source, DagSource)
        return self._documents[version_id], self._sources[version_id]

    def forget_sources(self) -> None:
        """Files were read: a DAG may have moved to another one."""
        self._sources.clear()


_SOURCE = select(VERSION.c.source).where(VERSION.c.id == bindparam("version"))


def pause(connection: Connection, dag_id: str, paused: bool) -> None:
    """Start no run and no task of this DAG (or do again)."""
    get(connection, dag_id)
    connection.execute(update(DAG).where(DAG.c.dag_id == dag_id).values(is_paused=paused))


def store_problem(connection: Connection, path: str, problem: ParseProblem, now: datetime) -> None:
    """Keep why a file gives no DAG."""
    forget_problem(connection, path)
    connection.execute(
        insert(PROBLEM).values(
            path=path,
            message=problem.message,
            traceback=problem.traceback,
            line=problem.line,
            column=problem.column,
            at=now,
        )
    )


def forget_problem(connection: Connection, path: str) -> None:
    """The file is fine, or gone."""
    connection.execute(delete(PROBLEM).where(PROBLEM.c.path == path))


def paths(connection: Connection) -> list[str]:
    """Files that define a DAG or cannot be read, as they were read last."""
    defining = select(DAG.c.path).where(DAG.c.missing_since.is_(None))
    return list(connection.execute(defining.union(select(PROBLEM.c.path))).scalars())


def overrides_of_dag(connection: Connection, dag_id: str) -> dict[str, str]:
    """The overrides that a DAG was read with last; none for one that is not known."""
    source = connection.execute(
        select(VERSION.c.source).join(DAG, DAG.c.version_id == VERSION.c.id).where(DAG.c.dag_id == dag_id)
    ).scalar()
    return {} if source is None else dict(source.get("overrides", {}))


def overrides_of(connection: Connection, path: str) -> dict[str, str]:
    """The overrides in force for a file: those that it was read with last."""
    source = connection.execute(
        select(VERSION.c.source)
        .join(DAG, DAG.c.version_id == VERSION.c.id)
        .where(DAG.c.path == path, DAG.c.missing_since.is_(None))
        .order_by(DAG.c.parsed_at.desc())
        .limit(1)
    ).scalar()
    return {} if source is None else dict(source.get("overrides", {}))
