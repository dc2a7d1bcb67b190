"""The database: one client, Beanie's models bound to it, transactions, and whether it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pymongo
from beanie import Document, init_beanie
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from services.shared.condition_wait import mend_waiting
from services.shared.errors import CannotStart
from services.shared.failpoints import Failpoint, reach
from services.shared.fair_pool import FairPool
from services.shared.log import get_logger
from services.shared.tasks import end_if_cancelled

T = TypeVar("T")
Session = AsyncClientSession
Row = dict[str, Any]

DUPLICATE: Final = 11000
# What a slow disk reads or writes within MONGODB_TIMEOUT_SECONDS: what times out is repeated, and
# with more at once that would be for ever. A transaction of 40 MB is refused whatever its time.
PART_BYTES: Final = 2**21
# What befalls an operation when the server restarts, is busy, or an operator ends it: LockTimeout,
# CursorNotFound, QueryPlanKilled, CursorKilled, Interrupted.
_PASSING: Final = frozenset({24, 43, 175, 237, 11601})
_CONNECTING_AT_ONCE: Final = 8
_AGAIN_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 0.5
_DROP_SECONDS: Final = 60.0
_FIRST_INDEXES_SECONDS: Final = 4.0
_INDEXES_SECONDS: Final = 600.0
_REAPED_AFTER: Final = 1.5  # lifetimes, at most, until MongoDB ends a transaction
_HEARTBEAT_MILLISECONDS: Final = 1000

log = get_logger()


class _PlainInteger(TypeDecoder):
    """JSON as it was given: MongoDB answers long integers in a class that no encoder takes."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


_AS_GIVEN: Final = CodecOptions[Row](tz_aware=True)
_quick: dict[type[Document], AsyncCollection[Row]] = {}


def quickly(model: type[Document]) -> AsyncCollection[Row]:
    """A model's collection, read without looking for long integers: they are Int64, which not every
    encoder takes. Kept with the model, as Beanie keeps its own: making one takes a while."""
    slow: AsyncCollection[Row] = model.get_pymongo_collection()
    quick = _quick.get(model)
    if quick is None or quick.database is not slow.database:
        quick = _quick[model] = slow.database.get_collection(slow.name, _AS_GIVEN)
    return quick


class Store:
    """An open database. Built by open_store()."""

    def __init__(self, client: AsyncMongoClient[Row], database: str, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self.database = client.get_database(
            database,
            codec_options=CodecOptions(
                tz_aware=True, type_registry=TypeRegistry([_PlainInteger()])
            ),
        )

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run `work` in a transaction: all of its writes or none. It may run more than once."""
        with pymongo.timeout(self._timeout):  # or it tries again for two minutes
            async with self._client.start_session() as session:
                result = await session.with_transaction(work)
        reach(Failpoint.AFTER_COMMIT)
        return result

    async def drop(self) -> None:
        """Delete the database with all that is in it, which may take a minute."""
        with pymongo.timeout(_DROP_SECONDS):
            await self._client.drop_database(self.database.name)

    async def time(self) -> datetime:
        """The database's own time."""
        hello = await self.database.command("hello")
        moment: datetime = hello["localTime"].replace(tzinfo=UTC)  # whatever the codec options
        return moment

    async def longest_write(self) -> float | None:
        """Seconds until a write is done or undone, whatever the network does; None if untold."""
        parameter = "transactionLifetimeLimitSeconds"
        try:
            answer = await self._client.admin.command({"getParameter": 1, parameter: 1})
        except OperationFailure:  # not every user may ask
            return None
        return float(self._timeout + _REAPED_AFTER * answer[parameter])

    async def ping(self) -> None:
        """Raises PyMongoError when the database does not answer in time, or takes no writes."""
        hello = await self._client.admin.command("hello")
        if not hello.get("isWritablePrimary"):
            raise NotPrimaryError("MongoDB answers, and has no primary yet.")


@asynccontextmanager
async def open_store(
    url: str,
    database: str,
    models: Sequence[type[Document]],
    *,
    timeout: float,
    patience: float,
    connections: int = 4,
) -> AsyncIterator[Store]:
    """Connect to a replica set, bind the models and make their indexes.

    `timeout`: seconds that any one operation may take; `patience`: seconds to wait for a database
    that is not up yet. Raises CannotStart.
    """
    mend_waiting()
    try:
        client: AsyncMongoClient[Row] = AsyncMongoClient(
            url,
            tz_aware=True,
            timeoutMS=int(timeout * 1000),
            serverSelectionTimeoutMS=int(timeout * 1000),
            # A handshake that nobody answers must not hold up the next one.
            connectTimeoutMS=int(timeout * 1000),
            heartbeatFrequencyMS=_HEARTBEAT_MILLISECONDS,
            # A crowd waits for its turn: each new connection costs more than many questions.
            maxPoolSize=connections,
            maxConnecting=_CONNECTING_AT_ONCE,
            appname="tidings",
            _pool_class=FairPool,
        )
        store = Store(client, database, timeout)
    except InvalidName as error:
        raise CannotStart(f"MONGODB_DATABASE is not a database's name: {error}.") from error
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise CannotStart(f"MONGODB_URL is not a MongoDB address: {error}") from error
    try:
        await _until_answering(client, patience)
        if models:
            await _bind(store, models, patience)
        yield store
    finally:
        await _close(client)


async def _close(client: AsyncMongoClient[Row]) -> None:
    """Close within a second. A server that hangs is told first that its sessions end, then left."""
    for _ in range(2):
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()
                return


async def _bind(store: Store, models: Sequence[type[Document]], patience: float) -> None:
    """Bind the models and make their indexes, again if the database goes away meanwhile.

    An attempt may take longer each time: a new index of much data takes minutes, and a link that
    swallows everything must not be waited for as long.
    """
    deadline, seconds = time.monotonic() + patience, _FIRST_INDEXES_SECONDS
    while True:
        try:
            with pymongo.timeout(seconds):
                await init_beanie(database=store.database, document_models=list(models))
        except PyMongoError as error:
            end_if_cancelled()
            late = time.monotonic() > deadline and seconds >= _INDEXES_SECONDS
            if not is_away(error) or late:
                raise
            log.warning("waiting_for_indexes", error=str(error), seconds=seconds)
            seconds = min(2 * seconds, _INDEXES_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return


async def _until_answering(client: AsyncMongoClient[Row], patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            hello = await client.admin.command("hello")
        except PyMongoError as error:
            end_if_cancelled()
            reason = str(error).partition(" (configured timeouts")[0]
            if not is_away(error) or time.monotonic() > deadline:
                raise CannotStart(
                    f"MongoDB does not answer: check MONGODB_URL and that it is up ({reason})."
                ) from error
            log.info("waiting_for_mongodb", error=reason)
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            break
    if not hello.get("setName"):
        raise CannotStart(
            "MONGODB_URL names a single mongod, and transactions need a replica set: "
            "start it with --replSet (one member is enough) and run rs.initiate()."
        )


def is_away(error: BaseException) -> bool:
    """Whether the database was out of reach or too slow: not the caller's fault, and passing."""
    if isinstance(error, ConnectionFailure | ExecutionTimeout | WriteConcernError):
        return True
    if isinstance(error, BulkWriteError):  # a database that shuts down says so in this way, too
        faults = _faults(error)
        passing = bool(faults or (error.details or {}).get("writeConcernErrors"))
        return passing and all(one["code"] in _PASSING for one in faults)
    if isinstance(error, OperationFailure) and error.code in _PASSING:
        return True
    if isinstance(error, ConfigurationError):  # of a replica set, which open_store() asks for
        return "Sessions are not supported" in str(error)  # a member that has just started
    return isinstance(error, PyMongoError) and (
        error.timeout or error.has_error_label("TransientTransactionError")
    )


def is_duplicate(error: BulkWriteError) -> bool:
    """Whether unique indexes refused some of the writes, and nothing else was wrong."""
    return not (error.details or {}).get("writeConcernErrors") and not _faults(error)


def _faults(error: BulkWriteError) -> list[Row]:
    """What is wrong with single writes, beyond their being there already."""
    errors = (error.details or {}).get("writeErrors", [])
    return [one for one in errors if one["code"] != DUPLICATE]


def parts(rows: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The rows in order, in parts of PART_BYTES or of a single row. `size`: bytes of a row."""
    part: list[T] = []
    total = 0
    for row in rows:
        if part and total + size(row) > PART_BYTES:
            yield part
            part, total = [], 0
        part.append(row)
        total += size(row)
    if part:
        yield part


async def first_part(rows: AsyncIterable[T], size: Callable[[T], int]) -> tuple[list[T], bool]:
    """The first rows, until they have PART_BYTES, and whether that is all; at least one, if there
    is one."""
    part: list[T] = []
    total = 0
    async for row in rows:
        part.append(row)
        total += size(row)
        if total >= PART_BYTES:
            return part, False
    return part, True


async def insert_new(model: type[Document], rows: Sequence[Row]) -> set[int]:
    """Insert the rows that no unique index refuses; the positions of those that were there."""
    return await write_all(model, [InsertOne(row) for row in rows])


async def write_all(
    model: type[Document], writes: Sequence[InsertOne[Row] | UpdateOne]
) -> set[int]:
    """Carry out all writes that no unique index refuses; the positions of those it does."""
    if not writes:
        return set()
    try:
        await model.get_pymongo_collection().bulk_write(writes, ordered=False)
    except BulkWriteError as error:
        if not is_duplicate(error):
            raise
        return {fault["index"] for fault in error.details["writeErrors"]}
    return set()
