"""What becomes of deliveries after they were decided. Those who send them come later."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bson import ObjectId

from services.notifications.caps import Allowance
from services.notifications.deliveries import Delivery
from services.notifications.dispatch import in_state
from services.notifications.ledgers import Ledgers
from services.shared.clock import Clock
from services.shared.settings import Settings
from services.shared.store import Session, Store
from services.shared.vocabulary import Channel, DeliveryState


class Delivering:
    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    async def failed(self, id: ObjectId) -> bool:
        """It can't be sent, and is given up: what it had spent is given back. False, and nothing
        happens, where it was not READY."""
        return await self._end(id, [DeliveryState.READY], DeliveryState.FAILED)

    async def cancel(self, id: ObjectId) -> bool:
        """It shall not be sent, and what it had spent is given back. False: it came too late."""
        open_ = [DeliveryState.HELD, DeliveryState.READY]
        return await self._end(id, open_, DeliveryState.CANCELLED)

    async def _end(
        self, id: ObjectId, states: Sequence[DeliveryState], becomes: DeliveryState
    ) -> bool:
        return await self._store.transact(partial(self._end_within, id, states, becomes))

    async def _end_within(
        self,
        id: ObjectId,
        states: Sequence[DeliveryState],
        becomes: DeliveryState,
        session: Session,
    ) -> bool:
        now = self._clock.now()
        row = await Delivery.get_pymongo_collection().find_one_and_update(
            {"_id": id, "state": {"$in": states}},
            {"$set": in_state(becomes, now, self._settings)},
            {"user_id": 1, "event": 1, "channel": 1},
            session=session,
        )
        if row is None:
            return False
        ledgers = await Ledgers.of([row["user_id"]], session)
        ledgers.give_back(row["user_id"], (row["event"], Channel(row["channel"])))
        await ledgers.write(Allowance.of(self._settings), now, session)
        return True
