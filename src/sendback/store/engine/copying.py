"""The copy of an installation to another database, of either kind.

Theory of operation. The source is read in one transaction, so the copy has one state of it. Rows go
over in pages of some megabytes, each a transaction of the target. From its first page until all is
compared, the version of the target is a mark, so no server uses it; a copy that ends early is begun
anew, from empty tables. Each page checks the mark, so that two copies never mix. At the end the
target is read again: of each table the number of rows must agree, and the sum of their hashes.

Content in files becomes rows of `content_chunks`. Content in the database is copied with its table,
content in an object store stays there.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    literal,
    make_url,
    select,
    tuple_,
)
from sqlalchemy.exc import DBAPIError

from sendback.errors import SendbackError
from sendback.store.engine.content.database import CHUNK_OCTETS
from sendback.store.engine.dialects import (
    described,
    failure_of,
    finish_copy,
    insert_rows,
    lock_schema,
    patient_engine,
)
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.nodes import GONE_AFTER, NODE_PREFIX, serving_nodes
from sendback.store.engine.tables import (
    OLDEST_SCHEMA,
    SCHEMA_VERSION,
    accounts,
    content_chunks,
    generations,
    installation,
    loose_contents,
    messages,
    metadata,
)
from sendback.store.engine.versions import (
    OLDEST,
    UNFINISHED,
    UnfinishedCopyError,
    create_tables,
    read_schema,
    set_schema,
    version_of,
)

_PAGE_ROWS = 1000
_PAGE_OCTETS = 4 * 1024 * 1024
_REPORTED_SECONDS = 2.0
_HASHES = 2**64
# What a new database may have before anything is copied to it.
_OF_A_NEW_DATABASE = frozenset({accounts, generations, installation})

Row = tuple[Any, ...]


class CopyError(SendbackError):
    """The installation cannot be copied; the text says what to do."""


@dataclass(slots=True)
class Sum:
    """What is compared: the number of rows, and the sum of their hashes; and their octets."""

    rows: int = 0
    hashes: int = 0
    octets: int = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows, in any order."""
        for row in rows:
            number, octets = _hash(row)
            self.hashes = (self.hashes + number) % _HASHES
            self.octets += octets
        self.rows += len(rows)


@dataclass(slots=True)
class Copied:
    """What was copied: a sum for each table, files that were missing, and texts that had NUL."""

    tables: dict[str, Sum] = field(default_factory=dict)
    missing_files: list[str] = field(default_factory=list)
    replaced_nul: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def octets(self) -> int:
        """The octets of the values in all tables."""
        return sum(table.octets for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """`files` has the source's content in files. `fingerprint` is of the secret, if it is known."""

    files: Path
    fingerprint: str
    replace: bool = False
    while_serving: bool = False


def copy_installation(
    source: str, target: str, options: CopyOptions, report: Callable[[str], None]
) -> Copied:
    """Copy all rows and contents, compare them, and return what was copied.

    `report` is called with a line of progress. Raises `CopyError`, `SchemaError`,
    `StoreUnavailableError`.
    """
    started = time.monotonic()
    _check_places(source, target)
    with (
        patient_engine(source, writes=False) as reading,
        patient_engine(target, writes=True) as writing,
        _errors_of(reading),
        reading.connect() as connection,
    ):
        _check_source(connection, options)
        copy = _Copy(connection, writing, options, report)
        copy.run()
    copy.copied.seconds = time.monotonic() - started
    return copy.copied


def _check_source(connection: Connection, options: CopyOptions) -> None:
    schema = read_schema(connection)
    name = connection.engine.url.database
    if schema is None:
        raise CopyError(f"the database {name} is empty: there is nothing to copy")
    if schema.version != SCHEMA_VERSION:
        raise CopyError(
            f"the database {name} has schema {schema.version}, a copy needs {SCHEMA_VERSION}: run "
            "`sendback db upgrade`, and with --contract if it says so"
        )
    if not options.while_serving:
        _check_nobody_serves(connection, "; or repeat it with --while-serving")
    query = select(installation.c.value).where(installation.c.name == "secret")
    if connection.execute(query).scalar() not in {None, options.fingerprint}:
        raise CopyError(
            f"the keys in the database {name} are sealed with another secret than the one of this "
            "command: give its data directory with --data-dir, or the secret as SENDBACK_SECRET"
        )


def _check_nobody_serves(connection: Connection, otherwise: str = "") -> None:
    nodes = serving_nodes(connection)
    if nodes:
        names = ", ".join(node.name for node in nodes)
        raise CopyError(
            f"servers use the database {connection.engine.url.database}: {names}: stop them "
            f"(one that was killed counts for {GONE_AFTER.total_seconds():.0f} s){otherwise}"
        )


class _Copy:
    def __init__(
        self,
        source: Connection,
        target: Engine,
        options: CopyOptions,
        report: Callable[[str], None],
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._report = report
        self._reported = time.monotonic()
        self._mark = UNFINISHED + os.urandom(6).hex()
        self.copied = Copied()

    def run(self) -> None:
        with _errors_of(self._target), self._target.begin() as connection:
            self._empty(connection)
        for table in metadata.sorted_tables:
            self._copy_table(table)
        self._copy_files()
        self._report("comparing")
        self._compare()
        with self._writing() as connection:
            finish_copy(connection, metadata.sorted_tables)
            set_schema(connection, SCHEMA_VERSION, OLDEST_SCHEMA)

    def _empty(self, connection: Connection) -> None:
        """Leave empty tables with the mark, if nothing in the target would be lost."""
        lock_schema(connection)
        try:
            schema = read_schema(connection)
        except UnfinishedCopyError:
            schema = None
            self._report("an unfinished copy is in the target: it is begun anew")
        else:
            self._check_target(connection, is_empty=schema is None)
        found = MetaData()
        found.reflect(connection)
        found.drop_all(connection)
        create_tables(connection)
        set_schema(connection, self._mark)

    def _check_target(self, connection: Connection, *, is_empty: bool) -> None:
        if is_empty:
            return
        _check_nobody_serves(connection)
        if self._options.replace:
            return
        for table in metadata.sorted_tables:
            one = connection.execute(select(literal(1)).select_from(table).limit(1))
            if table not in _OF_A_NEW_DATABASE and one.scalar() is not None:
                raise CopyError(
                    f"the database {connection.engine.url.database} has data, in {table.name}: "
                    "name another, or replace all of it with --replace"
                )

    def _copy_table(self, table: Table) -> None:
        total = self.copied.tables[table.name] = Sum()
        is_messages = table is messages
        for page in _pages(self._source, table, _condition(table)):
            rows = [self._without_nul(row) for row in page]
            if is_messages:
                rows = [_with_blob_in_database(table, row) for row in rows]
            self._insert(table, rows, total)

    def _copy_files(self) -> None:
        total = self.copied.tables[content_chunks.name]
        for name in _files(self._source):
            path = self._options.files / name
            try:
                for page in _chunks(name, path):
                    self._insert(content_chunks, page, total)
            except FileNotFoundError:
                self.copied.missing_files.append(name)

    def _insert(self, table: Table, rows: Sequence[Row], total: Sum) -> None:
        with self._writing() as connection:
            insert_rows(connection, table, rows)
        total.add(rows)
        if time.monotonic() - self._reported > _REPORTED_SECONDS:
            self._reported = time.monotonic()
            self._report(f"{table.name}: {total.rows} rows, {total.octets / 1e6:.1f} MB")

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction of the target, which is still this copy's."""
        with _errors_of(self._target), self._target.begin() as connection:
            if version_of(connection) != self._mark:
                raise CopyError("another copy into the same database has begun; this one ends")
            yield connection

    def _without_nul(self, row: Row) -> Row:
        """Return the row without NUL, which older versions stored and PostgreSQL refuses."""
        if not any(isinstance(value, str) and "\0" in value for value in row):
            return row
        self.copied.replaced_nul += 1
        return tuple(
            value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row
        )

    def _compare(self) -> None:
        with _errors_of(self._target), self._target.connect() as connection:
            for table in metadata.sorted_tables:
                found, wanted = Sum(), self.copied.tables[table.name]
                for page in _pages(connection, table, _condition(table)):
                    found.add(page)
                if found != wanted:
                    raise CopyError(
                        f"the copy of {table.name} differs: {found.rows} rows instead of "
                        f"{wanted.rows}, or other values: run the command again"
                    )


def _condition(table: Table) -> ColumnElement[bool] | None:
    """Return which rows are copied; None: all."""
    if table is installation:
        names = installation.c.name
        return ~names.startswith(NODE_PREFIX) & (names != OLDEST)
    if table is loose_contents:
        return loose_contents.c.blob.contains(":")  # files that no message names stay behind
    return None


def _pages(
    connection: Connection, table: Table, condition: ColumnElement[bool] | None = None
) -> Iterator[list[Row]]:
    """Yield all rows in pages of at most `_PAGE_OCTETS`, or one row."""
    key = list(table.primary_key.columns)
    places = [list(table.columns).index(column) for column in key]
    after: Row | None = None
    limit = _PAGE_ROWS
    while True:
        rest = [] if condition is None else [condition]
        if after is not None:
            rest.append(tuple_(*key) > tuple_(*map(literal, after)))
        sizes = select(_octets(table)).select_from(table).where(*rest).order_by(*key).limit(limit)
        count = _fitting(connection.execute(sizes).scalars().all())
        if not count:
            return
        rows = select(table).where(*rest).order_by(*key).limit(count)
        page = [tuple(row) for row in connection.execute(rows)]
        yield page
        after = tuple(page[-1][place] for place in places)
        limit = min(_PAGE_ROWS, 2 * count + 8)


def _octets(table: Table) -> ColumnElement[int]:
    """Return how large a row is, about."""
    large = [c for c in table.columns if isinstance(c.type, LargeBinary | Text) or _is_text(c.type)]
    lengths = [func.coalesce(func.length(column), 0) for column in large]
    return sum(lengths[1:], start=lengths[0]) if lengths else literal(100)


def _is_text(kind: object) -> bool:
    return isinstance(getattr(kind, "impl", None), Text)


def _fitting(sizes: Sequence[int]) -> int:
    """Return how many rows of these sizes are a page."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and total > _PAGE_OCTETS:
            return count
    return len(sizes)


def _files(connection: Connection) -> Iterator[str]:
    """Yield the names of contents in files, each once."""
    blob = messages.c.blob
    after = ""
    while True:
        query = (
            select(blob)
            .distinct()
            .where(blob.is_not(None), blob > after, ~blob.contains(":"))
            .order_by(blob)
            .limit(_PAGE_ROWS)
        )
        names = connection.execute(query).scalars().all()
        if not names:
            return
        yield from names
        after = names[-1]


def _chunks(name: str, path: Path) -> Iterator[list[Row]]:
    with path.open("rb") as file:
        octets = file.read(CHUNK_OCTETS)
        number = 0
        while octets or number == 0:
            yield [(name, number, octets)]
            number += 1
            octets = file.read(CHUNK_OCTETS)


def _with_blob_in_database(table: Table, row: Row) -> Row:
    place = list(table.columns).index(messages.c.blob)
    blob = row[place]
    if blob is None or ":" in blob:
        return row
    return (*row[:place], f"database:{blob}", *row[place + 1 :])


def _hash(row: Row) -> tuple[int, int]:
    """Return a hash of the row and its octets."""
    digest, octets = hashlib.blake2b(digest_size=8), 0
    for value in row:
        if isinstance(value, str | bytes):
            data = value.encode() if isinstance(value, str) else value
            digest.update(b"%d:" % len(data))
            digest.update(data)
            octets += len(data)
        else:
            digest.update(b"%r;" % (value,))
            octets += 8
    return int.from_bytes(digest.digest()), octets


@contextmanager
def _errors_of(engine: Engine) -> Iterator[None]:
    """Raise `StoreUnavailableError` or `CopyError` for the errors of this database."""
    try:
        yield
    except DBAPIError as error:
        if failure_of(error, engine) is not None:
            raise StoreUnavailableError(described(error, engine)) from error
        raise CopyError(f"the database {engine.url.database}: {error.orig}") from error


def _check_places(source: str, target: str) -> None:
    """Raise `CopyError` if the source is missing, which SQLite would create, or is the target."""
    parsed = make_url(source)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise CopyError(f"there is no database {parsed.database}")
    if _place(source) == _place(target):
        raise CopyError("the source and the target are the same database")


def _place(url: str) -> Mapping[str, Any]:
    """Return where the database is, as far as the URL has it."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return {"file": Path(parsed.database or "").resolve()}
    host = parsed.host or parsed.query.get("host")
    return {"database": parsed.database, "host": host, "port": parsed.port}
