"""What a broadcast counts: each recipient once, on all channels together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.host import Runtime
from services.notifications.deliveries import Delivery
from services.notifications.fan_out import FanOut
from services.shared.vocabulary import (
    BroadcastState,
    Channel,
    DeliveryState,
    QuietAction,
    Weekday,
)
from services.users.preferences import Wishes
from services.users.quiet_hours import QuietChange, QuietWindow
from tests.crowds import counters, crowd, emptied, found, have, resting, run
from tests.kit import Elsewhere, Killed, ShiftedClock, killed
from tests.other_channels import switched
from tests.servers import PrivateMongod

LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)
APP, MAIL = Channel.IN_APP, Channel.EMAIL
DONE = BroadcastState.DONE


@pytest.fixture(scope="module")
async def at_rest(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[Runtime]:
    lease = LEASE.total_seconds()
    async with resting(mongod.url, clock, broadcast_lease_seconds=lease) as runtime:
        yield runtime


@pytest.fixture
async def shop(at_rest: Runtime) -> Runtime:
    return await emptied(at_rest)


async def reader(shop: Runtime, *on: Channel, off: tuple[Channel, ...] = ()) -> str:
    """Somebody who gets promotions on these channels and not on those."""
    [id] = await crowd(shop.clock, 1)
    await shop.choosing.update_preferences(id, Wishes(switched(*on, off=off)), None)
    return id


async def sleeper(shop: Runtime, *on: Channel, off: tuple[Channel, ...] = ()) -> str:
    """The same, with quiet hours for mails now."""
    id = await reader(shop, *on, off=off)
    now = shop.clock.now()
    window = QuietWindow(days=tuple(Weekday), start=f"{now:%H:%M}", end=f"{now + 2 * HOUR:%H:%M}")
    quiet = QuietChange(MAIL, QuietAction.DEFER, (window,))
    wishes = Wishes(quiet_hours=(quiet,), timezone="UTC")
    await shop.choosing.update_preferences(id, wishes, None)
    return id


async def test_who_has_it_on_any_channel_is_sent_and_who_waits_for_it_on_any_held(
    shop: Runtime,
) -> None:
    everywhere, by_mail = await reader(shop, APP, MAIL), await reader(shop, MAIL, off=(APP,))
    await reader(shop, off=(APP, MAIL))
    at_once, later = await sleeper(shop, APP, MAIL), await sleeper(shop, MAIL, off=(APP,))
    broadcast = await found(shop)
    await run(shop)
    assert await have(broadcast) == sorted([everywhere, at_once])
    mailed = {one.user_id: one.state async for one in Delivery.find_all()}
    ready, held = DeliveryState.READY, DeliveryState.HELD
    assert mailed == {everywhere: ready, by_mail: ready, at_once: held, later: held}
    assert await counters(broadcast) == (DONE, 5, {"sent": 3, "held": 1, "suppressed": 1})


async def test_one_that_is_done_again_counts_what_was_decided_the_first_time(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await reader(shop, MAIL, off=(APP,))
    await reader(shop, APP)
    await reader(shop, off=(APP, MAIL))
    await sleeper(shop, MAIL, off=(APP,))
    broadcast = await found(shop)
    await dies_before_it_counts(shop)
    with clock.moved(LEASE):
        await run(shop)
    assert await counters(broadcast) == (DONE, 4, {"sent": 2, "held": 1, "suppressed": 1})
    assert await Delivery.find_all().count() == 2


async def test_one_that_is_cancelled_counts_who_has_it_on_any_channel(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await reader(shop, MAIL, off=(APP,))
    await reader(shop, APP)
    await reader(shop, off=(APP, MAIL))
    await sleeper(shop, MAIL, off=(APP,))
    broadcast = await found(shop)
    await dies_before_it_counts(shop)
    await shop.broadcasting.cancel(str(broadcast.id))
    with clock.moved(LEASE):
        await run(shop)
    assert await counters(broadcast) == (
        BroadcastState.CANCELLED,
        4,
        {"sent": 2, "held": 1},
    )


async def dies_before_it_counts(shop: Runtime) -> None:
    class Dying(Elsewhere):
        """A store on which the second transaction is never begun."""

        async def second(self) -> None:
            self._before = killed

    store = Dying(shop.store)
    store._after = store.second
    with pytest.raises(Killed):
        await FanOut(store, shop.announcing, shop.texts, shop.clock, shop.settings).send()
