"""A connection that goes straight to SQLite with the statements SQLAlchemy makes.

The statements, their parameters and the types of what comes back are SQLAlchemy's, for its SQLite dialect. Left out is
what it does around each execution (contexts, events, cursors with metadata), which costs ten times as much as SQLite:
a simulation executes hundreds of thousands of statements, of a few hundred kinds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Dialect
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.engine.row import Row
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.sql.compiler import SQLCompiler

Process = Callable[[Any], Any]


class _Text(NamedTuple):
    """SQL for lists of certain lengths."""

    sql: str
    #: what stands where: a parameter, and its place in a list
    places: tuple[tuple[str, int | None], ...]
    #: how those values are written that are not written as they are
    processes: tuple[tuple[int, Process], ...]


class _Bind(NamedTuple):
    """A parameter of a statement: its name in the SQL, its key in what is given, and otherwise its value, which comes
    with the statement: as the `number`-th of those that were taken out of it, or with the parameter itself."""

    name: str
    key: str
    number: int | None
    own: Any


class _Plan:
    """A compiled statement: how values become SQL, and rows become values."""

    def __init__(self, compiled: SQLCompiler, dialect: Dialect) -> None:
        self._compiled = compiled
        numbers = _numbers(compiled)
        self._binds = tuple(
            _Bind(name, bind.key, numbers.get(id(bind)), bind) for bind, name in compiled.bind_names.items()
        )
        in_the_text = {*compiled.post_compile_params, *compiled.literal_execute_params}
        #: names of parameters whose value, or number of values, is a part of the SQL
        self._shaping = tuple(name for bind, name in compiled.bind_names.items() if bind in in_the_text)
        prefetched: list[Any] = [*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ())]
        self._defaults = {column.key: column.default.arg for column in prefetched}
        self._texts: dict[tuple[Any, ...], _Text] = {}
        columns = [] if compiled.isinsert or compiled.isupdate or compiled.isdelete else compiled._result_columns
        self.metadata = SimpleResultMetaData([column.keyname for column in columns])
        processors = [column.type._cached_result_processor(dialect, None) for column in columns]
        self.processors = processors if any(processors) else None

    def ready(self, given: Mapping[str, Any], extracted: Sequence[Any]) -> tuple[str, list[Any]]:
        """SQL and its parameters."""
        values = {
            name: given[key] if key in given else (own if number is None else extracted[number]).effective_value
            for name, key, number, own in self._binds
        }
        values.update(self._defaults)
        shape = tuple([_shape(values[name]) for name in self._shaping])
        text = self._texts.get(shape)
        if text is None:
            text = self._texts[shape] = self._expanded(values)
        found = [values[name] if place is None else values[name][place] for name, place in text.places]
        for number, process in text.processes:
            found[number] = process(found[number])
        return text.sql, found

    def _expanded(self, values: dict[str, Any]) -> _Text:
        compiled = self._compiled
        processes: dict[str, Any] = dict(compiled._bind_processors)
        names: Sequence[str]
        if not self._shaping:
            names, sql, places = compiled.positiontup or [], compiled.string, {}
        else:
            state = compiled._process_parameters_for_postcompile(dict(values))
            names, sql = state.positiontup or [], state.statement
            lists = state.parameter_expansion.items()
            places = {each: (name, number) for name, parts in lists for number, each in enumerate(parts)}
            processes.update(state.processors)
        return _Text(
            sql,
            tuple(places.get(name, (name, None)) for name in names),
            tuple((number, processes[name]) for number, name in enumerate(names) if name in processes),
        )


def _numbers(compiled: SQLCompiler) -> dict[int, int]:
    """Which of the values that were taken out of a statement is that of which parameter."""
    if compiled.cache_key is None or compiled._cache_key_bind_match is None:
        return {}
    copies = compiled._cache_key_bind_match[0]
    return {id(copy): number for number, bind in enumerate(compiled.cache_key[1]) for copy in copies[bind]}


def _shape(value: Any) -> Any:
    return len(value) if isinstance(value, list | tuple) else value


class StraightResult:
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

    def scalars(self) -> StraightResult:
        """The first value of each row."""
        return StraightResult([row[0] for row in self._rows], self.rowcount, None)

    def scalar(self) -> Any:
        """The first value of the first row."""
        return self._rows[0][0] if self._rows else None

    def scalar_one_or_none(self) -> Any:
        """The value. Raises MultipleResultsFound."""
        row = self.one_or_none()
        return None if row is None else row[0]

    def scalar_one(self) -> Any:
        """The value. Raises NoResultFound, MultipleResultsFound."""
        return self.one()[0]


class StraightConnection:
    """The part of SQLAlchemy's connection that the product uses. Plans live as long as the connection."""

    def __init__(self, driver: sqlite3.Connection, dialect: Dialect) -> None:
        self._driver = driver
        self.dialect = dialect
        self._plans: dict[Any, _Plan] = {}
        self._savepoints = 0

    def execute(self, statement: Any, parameters: Any = None) -> StraightResult:
        """See `sqlalchemy.Connection.execute`."""
        many = isinstance(parameters, list)
        given: Mapping[str, Any] = (parameters[0] if many else parameters) or {}
        plan, extracted = self._plan(statement, given)
        if many and len(parameters) > 1:
            ready = [plan.ready(each, extracted) for each in parameters]
            cursor = self._driver.executemany(ready[0][0], [values for _, values in ready])
            return StraightResult([], cursor.rowcount, None)
        cursor = self._driver.execute(*plan.ready(given, extracted))
        if cursor.description is None:
            return StraightResult([], cursor.rowcount, cursor.lastrowid)
        metadata, processors = plan.metadata, plan.processors
        index = metadata._key_to_index
        return StraightResult([Row(metadata, processors, index, row) for row in cursor.fetchall()], -1, None)

    @contextmanager
    def begin_nested(self) -> Iterator[None]:
        """See `sqlalchemy.Connection.begin_nested`."""
        self._savepoints += 1
        name = f"nested_{self._savepoints}"
        self._driver.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            self._driver.execute(f"ROLLBACK TO {name}")
            raise
        finally:
            self._driver.execute(f"RELEASE {name}")

    def _plan(self, statement: Any, given: Mapping[str, Any]) -> tuple[_Plan, Sequence[Any]]:
        # a statement remembers its key: only one that is made anew each time is taken apart each time
        own = statement.__dict__.get("_straight")
        names = tuple(sorted(given)) if statement.is_dml else ()
        if own is not None and own[0] == names:
            return own[1], own[2]
        taken_apart = statement._generate_cache_key()
        key, extracted, *_ = taken_apart
        plan = self._plans.get((key, names))
        if plan is None:
            compiled = statement._compiler(self.dialect, cache_key=taken_apart, column_keys=list(names))
            plan = self._plans[(key, names)] = _Plan(compiled, self.dialect)
        statement.__dict__["_straight"] = (names, plan, extracted)
        return plan, extracted
