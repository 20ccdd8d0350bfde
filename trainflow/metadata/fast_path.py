"""The fast path to the database: statements without SQLAlchemy's execution around them.

The statements, their parameters and the types of what comes back are SQLAlchemy's, for its dialects. Left out is what
it does around each execution (contexts, events, cursors with metadata), which costs ten times as much as SQLite itself,
and which a control plane would pay some twenty times for each task. On PostgreSQL what is executed is sent, and is
waited for when its result is looked at (`postgres_pipeline`). Elsewhere a result is there at once. On all of them it
may be looked at after the transaction.

A statement is best made once, when its module is loaded, with `bindparam`s: then nothing of it is looked at again. What
was made of a statement is found by the very object, as long as it lives: another one is never taken for it, even when
it has got its place in memory.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Dialect
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.engine.row import Row
from sqlalchemy.exc import MultipleResultsFound, NoResultFound, StatementError
from sqlalchemy.sql.compiler import SQLCompiler

from trainflow.metadata import server_connections
from trainflow.metadata import sqlalchemy_internals as internals
from trainflow.metadata.sqlalchemy_internals import Process

if TYPE_CHECKING:
    from trainflow.metadata.postgres_pipeline import PendingAnswer, StatementPipeline

Given = Mapping[str, Any]
#: a statement and the driver's error → SQLAlchemy's error
Wrap = Callable[[Any, Exception], StatementError]

#: kinds of statements that are remembered
_MOST_PLANS = 1000


class _Slot(NamedTuple):
    """A place in the SQL for a value: one that is given under `key` (in a list: the `place`-th of it), or `value`,
    which is written as it is."""

    key: str | None
    place: int | None
    process: Process | None
    value: Any


class _Text(NamedTuple):
    """SQL for lists of certain lengths."""

    sql: str
    slots: tuple[_Slot, ...]


class _Bind(NamedTuple):
    """A parameter of a statement: its name in the SQL, its key in what is given, and otherwise its value, which comes
    with the statement: as the `number`-th of those that were taken out of it, or with the parameter itself."""

    name: str
    key: str
    number: int | None
    own: Any


class _Plan:
    """A compiled statement: what all statements of its kind share."""

    def __init__(self, compiled: SQLCompiler, dialect: Dialect, more: bool) -> None:
        self.compiled = compiled
        #: for several rows: the keys that they get are not asked for
        self.more = more
        numbers = internals.numbers_of_parameters(compiled)
        self.binds = {
            name: _Bind(name, bind.key, numbers.get(id(bind)), bind) for bind, name in compiled.bind_names.items()
        }
        in_the_text = {*compiled.post_compile_params, *compiled.literal_execute_params}
        #: names of parameters whose value, or number of values, is a part of the SQL
        self.shaping = tuple(name for bind, name in compiled.bind_names.items() if bind in in_the_text)
        prefetched: list[Any] = [*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ())]
        self.defaults = {column.key: column.default.arg for column in prefetched}
        columns = (
            [] if compiled.isinsert or compiled.isupdate or compiled.isdelete else internals.result_columns(compiled)
        )
        self.metadata = SimpleResultMetaData([name for name, _ in columns])
        self.index = internals.index_of_names(self.metadata)
        processors = [internals.result_processor(type_, dialect) for _, type_ in columns]
        self.processors: Any = processors if any(processors) else None


class _Bound:
    """A plan, for one statement: which of its values are given each time, and which never change."""

    def __init__(self, plan: _Plan, names: tuple[str, ...], extracted: Sequence[Any]) -> None:
        self.plan = plan
        self.names = names
        self._extracted = extracted
        self._texts: dict[tuple[Any, ...], _Text] = {}
        self._shaping = [self._source(name) for name in plan.shaping]

    def ready(self, given: Given) -> tuple[str, list[Any]]:
        """SQL and its parameters."""
        shape: tuple[Any, ...] = ()
        if self._shaping:
            shape = tuple([_shape(value if key is None else given[key]) for key, value in self._shaping])
        text = self._texts.get(shape)
        if text is None:
            text = self._texts[shape] = self._text(given)
        return text.sql, [
            value
            if key is None
            else (given[key] if place is None else given[key][place])
            if process is None
            else process(given[key] if place is None else given[key][place])
            for key, place, process, value in text.slots
        ]

    def _source(self, name: str) -> tuple[str | None, Any]:
        """Where a parameter's value comes from: the key under which it is given, or the value."""
        if name in self.plan.defaults and name not in self.names:
            return None, self.plan.defaults[name]
        bind = self.plan.binds[name]
        if bind.key in self.names:
            return bind.key, None
        own = bind.own if bind.number is None else self._extracted[bind.number]
        if own.required:
            raise KeyError(f"no value is given for '{bind.key}'")
        return None, own.effective_value

    def _text(self, given: Given) -> _Text:
        compiled = self.plan.compiled
        processes = internals.bind_processors(compiled)
        lists: dict[str, tuple[str, int]] = {}
        sql: str = compiled.string
        names: Sequence[str] = compiled.positiontup or []
        if self.plan.shaping:
            sources = {name: self._source(name) for name in self.plan.binds}
            values = {name: value if key is None else given[key] for name, (key, value) in sources.items()}
            state = internals.expanded(compiled, values)
            sql, names = state.statement, state.positiontup or []
            parts = state.parameter_expansion.items()
            lists = {each: (name, place) for name, expanded in parts for place, each in enumerate(expanded)}
            processes.update(state.processors)
        return _Text(sql, tuple(self._slot(name, lists.get(name), processes.get(name)) for name in names))

    def _slot(self, name: str, part: tuple[str, int] | None, process: Process | None) -> _Slot:
        whole, place = part or (name, None)
        key, value = self._source(whole)
        if key is not None:
            return _Slot(key, place, process, None)
        value = value if place is None else value[place]
        return _Slot(None, None, None, value if process is None else process(value))


def _shape(value: Any) -> Any:
    return len(value) if isinstance(value, list | tuple) else value


class FastResult:
    """What a statement returned: the part of SQLAlchemy's result that is used."""

    def __init__(self, rows: list[Any], rowcount: int, last_id: int | None) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self.inserted_primary_key = (last_id,)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        """Every row."""
        return self._rows

    def first(self) -> Any | None:
        """The first row."""
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> Any | None:
        """The row. Raises MultipleResultsFound."""
        if len(self._rows) > 1:
            raise MultipleResultsFound(f"{len(self._rows)} rows")
        return self.first()

    def one(self) -> Any:
        """The row. Raises NoResultFound, MultipleResultsFound."""
        if not self._rows:
            raise NoResultFound("no row")
        return self.one_or_none()

    def mappings(self) -> FastResult:
        """Each row as a mapping of names: SQLAlchemy's inspection of tables asks for them."""
        return FastResult([row._mapping for row in self._rows], self.rowcount, None)

    def scalars(self) -> FastResult:
        """The first value of each row."""
        return FastResult([row[0] for row in self._rows], self.rowcount, None)

    def scalar(self) -> Any:
        """The first value of the first row."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """The value. Raises NoResultFound, MultipleResultsFound."""
        return self.one()[0]


class PipelinedResult(FastResult):
    """What a statement returned that was sent: it is waited for when it is looked at."""

    def __init__(
        self, answers: Sequence[PendingAnswer], plan: _Plan, wrap: Callable[[Exception], StatementError]
    ) -> None:
        self._answers = answers
        self._plan = plan
        self._wrap = wrap

    @property
    def _rows(self) -> list[Any]:  # type: ignore[override]
        plan = self._plan
        return [Row(plan.metadata, plan.processors, plan.index, row) for row in self._received_rows()]

    @property
    def rowcount(self) -> int:  # type: ignore[override]
        """How many rows were found or changed."""
        try:
            return sum([answer.count() for answer in self._answers])
        except Exception as error:
            raise self._wrap(error) from error

    @property
    def inserted_primary_key(self) -> Any:  # type: ignore[override]
        """The key that the database gave to the row."""
        return self._received_rows()[0]

    def _received_rows(self) -> list[tuple[Any, ...]]:
        try:
            return self._answers[0].rows()
        except Exception as error:
            raise self._wrap(error) from error


class Plans:
    """What was made of statements: each kind is compiled once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._plans: dict[Any, _Plan] = {}
        #: what was made of statements that live, by their id: each entry goes with its statement
        self._bounds: dict[int, tuple[weakref.ref[Any], _Bound]] = {}

    def execute(self, driver: sqlite3.Connection, statement: Any, parameters: Any) -> FastResult:
        """Execute a SELECT, INSERT, UPDATE or DELETE of SQLAlchemy's. Raises sqlite3.Error."""
        bound, given, more = self._taken(statement, parameters)
        if more:
            ready = [bound.ready(each) for each in parameters]
            cursor = driver.executemany(ready[0][0], [values for _, values in ready])
            return FastResult([], cursor.rowcount, None)
        cursor = driver.execute(*bound.ready(given))
        if cursor.description is None:
            return FastResult([], cursor.rowcount, cursor.lastrowid)
        metadata, processors, index = bound.plan.metadata, bound.plan.processors, bound.plan.index
        return FastResult([Row(metadata, processors, index, row) for row in cursor.fetchall()], -1, None)

    def execute_on_mysql(self, driver: Any, statement: Any, parameters: Any) -> FastResult:
        """Execute such a statement on MySQL or MariaDB. Raises the driver's error; ValueError for what is too large."""
        bound, given, more = self._taken(statement, parameters)
        with driver.cursor() as cursor:
            if more:
                ready = [bound.ready(each) for each in parameters]
                for sql, values in ready:
                    server_connections.refuse_too_large(driver, cursor, sql, values)
                cursor.executemany(ready[0][0], [tuple(values) for _, values in ready])
                return FastResult([], cursor.rowcount, None)
            sql, values = bound.ready(given)
            server_connections.refuse_too_large(driver, cursor, sql, values)
            cursor.execute(sql, tuple(values))
            if cursor.description is None:
                return FastResult([], cursor.rowcount, cursor.lastrowid)
            metadata, processors, index = bound.plan.metadata, bound.plan.processors, bound.plan.index
            return FastResult([Row(metadata, processors, index, row) for row in cursor.fetchall()], -1, None)

    def send(self, pipeline: StatementPipeline, wrapped: Wrap, statement: Any, parameters: Any) -> Any:
        """Send such a statement to PostgreSQL. `wrapped`: makes the driver's error one of SQLAlchemy's, when the answer
        is looked at. Raises the driver's error."""
        bound, given, more = self._taken(statement, parameters)
        answers = [pipeline.send(*bound.ready(each)) for each in (parameters if more else [given])]
        return PipelinedResult(answers, bound.plan, partial(wrapped, statement))

    def _taken(self, statement: Any, parameters: Any) -> tuple[_Bound, Given, bool]:
        """What is made of a statement, for these parameters (or the first of several), and whether there are several
        of them."""
        # older versions of Alembic give an empty tuple
        many = isinstance(parameters, list | tuple) and bool(parameters)
        given: Given = (parameters[0] if many else parameters) or {}
        more = many and len(parameters) > 1
        return self._bound(statement, given, more), given, more

    def _bound(self, statement: Any, given: Given, more: bool) -> _Bound:
        names, number = tuple(given), id(statement)
        kept = self._bounds.get(number)
        if kept is not None and kept[0]() is statement and kept[1].names == names and kept[1].plan.more == more:
            return kept[1]
        key, extracted, *_ = apart = internals.taken_apart(statement)
        columns = tuple(sorted(names)) if statement.is_dml else ()
        plan = self._plans.get((key, columns, more))
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            compiled = internals.compiled(statement, self._dialect, apart, columns, many=more)
            plan = self._plans[(key, columns, more)] = _Plan(compiled, self._dialect, more)
        bound = _Bound(plan, names, extracted)
        self._bounds[number] = (weakref.ref(statement, lambda gone: self._forget(number, gone)), bound)
        return bound

    def _forget(self, number: int, gone: weakref.ref[Any]) -> None:
        kept = self._bounds.get(number)
        if kept is not None and kept[0] is gone:
            del self._bounds[number]


def sqlite_plans() -> Plans:
    """Plans for a connection of the standard library's to SQLite."""
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

    return Plans(SQLiteDialect_pysqlite())
