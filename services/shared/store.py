"""The database: one client, Beanie's models bound to it, transactions, and whether it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import pymongo
from beanie import Document, init_beanie
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    PyMongoError,
    WriteConcernError,
)

from services.shared.errors import CannotStart
from services.shared.log import get_logger
from services.shared.tasks import end_if_cancelled

T = TypeVar("T")
Session = AsyncClientSession
Row = dict[str, Any]

DUPLICATE: Final = 11000
_AGAIN_SECONDS: Final = 0.5
_INDEXES_SECONDS: Final = 600

log = get_logger()


class _PlainInteger(TypeDecoder):
    """JSON as it was given: MongoDB answers long integers in a class that no encoder takes."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


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
                return await session.with_transaction(work)

    async def drop(self) -> None:
        """Delete the database with all that is in it."""
        await self._client.drop_database(self.database.name)

    async def ping(self) -> None:
        """Raises PyMongoError when the database does not answer in time."""
        await self._client.admin.command("ping")


@asynccontextmanager
async def open_store(
    url: str,
    database: str,
    models: Sequence[type[Document]],
    *,
    timeout: float,
    patience: float,
) -> AsyncIterator[Store]:
    """Connect to a replica set, bind the models and make their indexes.

    `timeout`: seconds that any one operation may take; `patience`: seconds to wait for a database
    that is not up yet. Raises CannotStart.
    """
    try:
        client: AsyncMongoClient[Row] = AsyncMongoClient(
            url,
            tz_aware=True,
            timeoutMS=int(timeout * 1000),
            serverSelectionTimeoutMS=int(timeout * 1000),
            appname="tidings",
        )
        store = Store(client, database, timeout)
    except InvalidName as error:
        raise CannotStart(f"MONGODB_DATABASE is not a database's name: {error}.") from error
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise CannotStart(f"MONGODB_URL is not a MongoDB address: {error}") from error
    try:
        await _until_answering(client, patience)
        if models:
            with pymongo.timeout(_INDEXES_SECONDS):
                await init_beanie(database=store.database, document_models=list(models))
        yield store
    finally:
        await client.close()


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
    return isinstance(error, PyMongoError) and (
        error.timeout or error.has_error_label("TransientTransactionError")
    )


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
        details = error.details or {}
        faults = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(fault["code"] != DUPLICATE for fault in faults):
            raise
        return {fault["index"] for fault in faults}
    return set()
