"""From what happens in a shop to notifications: orders, promotions, recommendations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from beanie import PydanticObjectId
from msgspec.structs import replace
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from services.notifications.announcing import Announcing
from services.notifications.catalogue import Product, keep_products
from services.notifications.drafts import Announcement, Draft
from services.notifications.gather import Gatherer
from services.notifications.handlers import NotificationHandlers
from services.notifications.recommend import RECOMMENDED_LATELY, Recommendation
from services.notifications.scheduling import Scheduling
from services.notifications.templates import Text, Words
from services.notifications.wording import Texts
from services.shared.errors import BadInput
from services.shared.events import (
    Event,
    OrderStatusChanged,
    ProductChanged,
    PromotionAnnounced,
    RecommendationsRequested,
)
from services.shared.settings import Settings
from services.shared.store import Row
from services.shared.vocabulary import Channel, NotificationType, Role
from services.shared.worker import when_back
from services.users.models import User
from services.users.recipients import Addressee, Named
from tests import notices
from tests.kit import House, ShiftedClock, open_house, quick_settings
from tests.notices import Wire, customer, nodes, refused, unread_count, wired
from tests.other_channels import deliveries
from tests.servers import PrivateMongod, until

ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
PROMOTE = "mutation($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
PRODUCT = "mutation($input: ProductInput!) { publishProduct(input: $input) { eventId } }"
PREFER = "mutation($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
TRACK = "mutation($input: ActivityInput!) { trackActivity(input: $input) }"
PICKS = "query($first: Int! = 5) { recommendations(first: $first) { productId name score reason } }"
SEND_PICKS = f"""mutation($userId: ID) {{ createRecommendations(userId: $userId) {{
    notification {{ {notices.NODE} }} decision {{ outcome reason until }} }} }}"""
A_DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def clock() -> ShiftedClock:
    """It only ever moves forward: what waits for a time must not wait longer."""
    return ShiftedClock()


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    """A house in which weeks pass, and whose sessions outlive them."""
    years = 10 * 365 * 86_400
    settings = quick_settings(mongod.url, access_token_seconds=years, refresh_token_seconds=years)
    async with open_house(settings, clock) as house:
        yield house


@pytest.fixture
async def fan(house: House) -> AsyncIterator[Wire]:
    """Somebody who accepts promotions, and was welcomed."""
    async with wired(await house.somebody()) as fan:
        await arrived(fan, 1)
        yield fan


async def arrived(somebody: Wire, count: int) -> list[Any]:
    """The notifications when there are so many, the newest first."""

    async def enough() -> list[Any]:
        found = await nodes(somebody)
        return found if len(found) >= count else []

    found: list[Any] = await until(enough)
    assert len(found) == count
    return found


async def all_is_handled(house: House, backend: Wire) -> None:
    """When an order update that was published now has arrived, so has all before it."""
    async with wired(await customer(house)) as last:
        await ship(backend, last)
        await arrived(last, 1)


async def ship(backend: Wire, somebody: Wire, **fields: Any) -> str:
    order = {"orderId": "A-1", "userId": somebody.id, "status": "shipped"} | fields
    event_id: str = (await backend.ask(ORDER, input=order))["publishOrderStatus"]["eventId"]
    return event_id


async def promote(backend: Wire, **fields: Any) -> None:
    await backend.ask(PROMOTE, input={"title": "Sale", "body": "Half of all"} | fields)


async def titles(somebody: Wire) -> list[str]:
    return [node["title"] for node in await nodes(somebody)]


async def test_a_status_is_told_as_it_looks(backend: Wire, ann: Wire) -> None:
    await ship(backend, ann, status="zuru\u0308ckgelegt")
    [told] = await arrived(ann, 1)
    assert told["content"]["status"] == "zur\u00fcckgelegt"
    assert "zur\u00fcckgelegt" in told["body"]


async def test_every_status_of_an_order_is_told_in_its_words(backend: Wire, ann: Wire) -> None:
    told = {
        "placed": "Order 1 received",
        "paid": "Order 2 is paid",
        "packed": "Order 3 is packed",
        "shipped": "Order 4 is on its way",
        "delivered": "Order 5 was delivered",
        "cancelled": "Order 6 was cancelled",
        "refunded": "Order 7 was refunded",
        "payment_failed": "Payment of order 8 failed",
        "waits at customs": "News of order 9",
    }
    for number, status in enumerate(told, start=1):
        await ship(backend, ann, status=status, orderId=str(number))
    found = await arrived(ann, len(told))
    assert {node["content"]["status"]: node["title"] for node in found} == told
    own_words = next(node for node in found if node["title"] == "News of order 9")
    assert own_words["body"] == "Its status is now: waits at customs."
    assert {node["type"] for node in found} == {"ORDER_UPDATE"}


async def test_what_else_is_known_of_an_order_is_passed_on(backend: Wire, ann: Wire) -> None:
    details = {"carrier": "Post", "parcels": [{"grams": 2**40, "fragile": True}]}
    await ship(backend, ann, version=3, details=details)
    [update] = await arrived(ann, 1)
    assert update["content"] == {
        "orderId": "A-1",
        "status": "shipped",
        "version": 3,
        "details": details,
    }


async def test_the_same_event_twice_makes_one_notification(
    house: House, backend: Wire, ann: Wire
) -> None:
    event_id = await ship(backend, ann)
    assert await ship(backend, ann, eventId=event_id) == event_id
    mine = uuid4().hex
    for _ in range(3):
        assert await ship(backend, ann, orderId="A-2", eventId=mine) == mine
    await all_is_handled(house, backend)
    assert len(await nodes(ann)) == 1 + 1


async def test_an_event_id_with_other_content_is_refused(
    house: House, backend: Wire, ann: Wire
) -> None:
    event_id = await ship(backend, ann, status="paid")
    for other in ({"status": "shipped"}, {"status": "paid", "version": 2}):
        error = await refused(ship(backend, ann, eventId=event_id, **other))
        assert error.code == "CONFLICT"
    await all_is_handled(house, backend)
    assert len(await nodes(ann)) == 1


async def test_an_event_with_anothers_id_and_other_content_is_dead(
    house: House, ann: Wire, fan: Wire
) -> None:
    event_id = uuid4().hex
    for user, status in ((ann, "paid"), (ann, "paid"), (ann, "shipped"), (fan, "paid")):
        order = OrderStatusChanged(order_id="A-1", user_id=user.id, status=status)
        event = Event.of(order, time=house.runtime.clock.now(), id=event_id, source="urn:shop")
        await house.runtime.bus.publish([event])

    reasons = await buried(house, event_id, 2)
    assert all(reason.startswith("CONFLICT: ") for reason in reasons)
    assert [node["content"]["status"] for node in await nodes(ann)] == ["paid"]


async def test_an_order_with_more_details_than_a_notification_may_have_is_dead(
    house: House, ann: Wire
) -> None:
    order = OrderStatusChanged(
        order_id="A-1",
        user_id=ann.id,
        status="paid",
        details={"text": "x" * house.runtime.settings.max_content_bytes},
    )
    event = Event.of(order, time=house.runtime.clock.now(), id="too large", source="urn:large")
    await house.runtime.bus.publish([event])
    [reason] = await buried(house, "too large", 1)
    assert reason.startswith("BAD_USER_INPUT: ")
    assert "MAX_CONTENT_BYTES" in reason


async def test_the_largest_order_that_is_accepted_arrives(
    house: House, backend: Wire, ann: Wire
) -> None:
    much = {"orderId": "A" * 200, "status": "s" * 200}
    empty = OrderStatusChanged(
        order_id=much["orderId"], user_id=ann.id, status=much["status"], details={"text": ""}
    )
    room = house.runtime.settings.max_content_bytes - len(msgspec.json.encode(empty))
    await ship(backend, ann, **much, details={"text": "x" * room})
    error = await refused(ship(backend, ann, **much, details={"text": "x" * (room + 1)}))
    assert error.code == "BAD_USER_INPUT"
    assert len(await arrived(ann, 1)) == 1


async def buried(house: House, event_id: str, count: int) -> list[str]:
    """The reasons of the dead letters of this event, when there are so many."""

    async def enough() -> list[str]:
        letters = await house.runtime.bus.dead_letters(100)
        found = [one.reason for one in letters if event_id.encode() in one.body]
        return found if len(found) == count else []

    found: list[str] = await until(enough)
    return found


async def test_an_event_id_is_its_callers_own(house: House, backend: Wire, ann: Wire) -> None:
    async with wired(await house.somebody(Role.SERVICE)) as other_shop:
        for shop, order in ((backend, "A-1"), (other_shop, "A-2")):
            await ship(shop, ann, eventId="event 1", orderId=order)
    await arrived(ann, 2)


async def test_an_order_of_nobody_is_refused(backend: Wire) -> None:
    order = {"orderId": "A-1", "userId": "6" * 24, "status": "paid"}
    assert (await refused(backend.ask(ORDER, input=order))).code == "NOT_FOUND"


async def test_only_a_shops_backend_publishes(ann: Wire) -> None:
    assert (await refused(ship(ann, ann))).code == "FORBIDDEN"
    assert (await refused(promote(ann))).code == "FORBIDDEN"


async def test_a_newcomer_is_welcomed_once(fan: Wire) -> None:
    assert await titles(fan) == ["Welcome, Some Body!"]


async def test_a_promotion_goes_to_those_whom_it_names(
    house: House, backend: Wire, fan: Wire
) -> None:
    async with wired(await house.somebody()) as other:
        await arrived(other, 1)
        await promote(backend, title="For you", userIds=[fan.id, "6" * 24, fan.id])
        assert (await arrived(fan, 2))[0]["title"] == "For you"
        await all_is_handled(house, backend)
        assert len(await nodes(fan)) == 2
        assert "For you" not in await titles(other)


async def test_a_promotion_for_everyone_goes_to_all_who_accept_promotions(
    house: House, backend: Wire, ann: Wire, fan: Wire
) -> None:
    async with wired(await house.somebody(Role.ADMIN)) as admin:
        await arrived(admin, 1)
        await promote(backend, title="For all")
        await all_is_handled(house, backend)
        for accepting in (fan, admin):
            assert (await titles(accepting)).count("For all") == 1
        for not_accepting in (ann, backend):
            assert "For all" not in await titles(not_accepting)


async def test_who_refuses_promotions_from_now_on_gets_none(
    house: House, backend: Wire, fan: Wire
) -> None:
    await fan.ask(PREFER, input={"types": [{"type": "PROMOTION", "enabled": False}]})
    await promote(backend, title="Too late", userIds=[fan.id])
    await all_is_handled(house, backend)
    assert "Too late" not in await titles(fan)
    await fan.ask(PREFER, input={"types": [{"type": "PROMOTION", "enabled": True}]})
    await promote(backend, title="Wanted again", userIds=[fan.id])
    assert (await arrived(fan, 2))[0]["title"] == "Wanted again"


class ChosenMeanwhile(Texts):
    """Texts in whose wording somebody's wish is stored."""

    def __init__(self, texts: Texts, meanwhile: Callable[[], object]) -> None:
        vars(self).update(vars(texts))
        self._meanwhile = meanwhile

    def words(self, user: Named) -> Words:
        self._meanwhile()
        return super().words(user)


async def test_who_refuses_promotions_while_they_are_worded_gets_none(
    clock: ShiftedClock, house: House, ann: Wire, mongod: PrivateMongod
) -> None:
    runtime = house.runtime
    with MongoClient[Row](mongod.url) as client:
        users = client[runtime.settings.mongodb_database][User.get_collection_name()]
        for enabled, sent in ((False, 0), (True, 1)):
            change = {"$set": {"choices.promotion.enabled": enabled}}
            refuse = partial(users.update_one, {"_id": PydanticObjectId(ann.id)}, change)
            handlers = NotificationHandlers(
                runtime.announcing,
                runtime.scheduling,
                ChosenMeanwhile(runtime.texts, refuse),
                clock,
                runtime.settings,
            ).table()
            sale = PromotionAnnounced(title="Sale", body="All of it", user_ids=(ann.id,))
            event = Event.of(sale, time=clock.now())
            await handlers[event.type]([event])
            assert len(await nodes(ann)) == sent


class SlowCancelling(Scheduling):
    """Something happens after it has cancelled."""

    def __init__(self, scheduling: Scheduling, then: Callable[[], Awaitable[object]]) -> None:
        vars(self).update(vars(scheduling))
        self._then = then

    async def cancel_on_orders(self, events: Sequence[Event]) -> None:
        await super().cancel_on_orders(events)
        await self._then()


async def test_who_refuses_mail_while_an_order_cancels_what_was_scheduled_gets_none(
    clock: ShiftedClock, house: House, ann: Wire
) -> None:
    runtime = house.runtime
    for enabled, sent in ((False, 0), (True, 1)):
        mail = {"channel": "EMAIL", "enabled": enabled}
        choice = {"types": [{"type": "ORDER_UPDATE", "channels": [mail]}]}
        scheduling = SlowCancelling(runtime.scheduling, partial(ann.ask, PREFER, input=choice))
        handlers = NotificationHandlers(
            runtime.announcing, scheduling, runtime.texts, clock, runtime.settings
        ).table()
        order = OrderStatusChanged(order_id=uuid4().hex, user_id=ann.id, status="shipped")
        event = Event.of(order, time=clock.now())
        await handlers[event.type]([event])
        assert len(await deliveries(ann.id, channel=Channel.EMAIL)) == sent


class InterruptedAnnouncing(Announcing):
    """Notes for whom it is asked; for one of them the database is away the first time."""

    def __init__(self, announcing: Announcing, unlucky: str) -> None:
        vars(self).update(vars(announcing))
        self._unlucky = unlucky
        self.asked = Counter[str]()

    async def announce(
        self, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
    ) -> Sequence[Announcement]:
        self.asked.update(draft.user_id for draft in drafts)
        if self._unlucky in recipients and self.asked[self._unlucky] == 1:
            raise AutoReconnect
        return await super().announce(drafts, recipients)


async def test_a_part_of_a_promotion_that_waits_for_the_database_has_no_other_sent_again(
    clock: ShiftedClock, house: House
) -> None:
    runtime = house.runtime
    ids = [(await house.somebody()).id for _ in range(4)]
    announcing = InterruptedAnnouncing(runtime.announcing, ids[2])
    one_a_part = runtime.settings.model_copy(update={"fan_out_size": 1})
    handlers = NotificationHandlers(
        announcing, runtime.scheduling, runtime.texts, clock, one_a_part
    ).table()
    sale = PromotionAnnounced(title="Sale", body="All of it", user_ids=tuple(ids))
    event = Event.of(sale, time=clock.now())
    await when_back(lambda: handlers[event.type]([event]), event.type)
    assert announcing.asked == {id: 2 if id == ids[2] else 1 for id in ids}


async def test_a_promotion_of_any_length_goes_to_a_thousand(house: House, fan: Wire) -> None:
    """In one transaction it would be too large for MongoDB's cache."""
    user = await User.by_id(fan.id)
    assert user
    text = Text("Sale", "\N{COAT}" * 5000)
    drafts = [
        Draft(fan.id, f"{uuid4().hex} {n}", NotificationType.PROMOTION, text, {"body": text.body})
        for n in range(1000)
    ]
    announced = await house.runtime.announcing.announce(drafts, {fan.id: user})
    assert len({one.notification.id for one in announced if one.notification}) == 1000
    assert await unread_count(fan) == 1000 + 1


async def test_a_promotion_disappears_when_it_is_over(
    clock: ShiftedClock, backend: Wire, fan: Wire
) -> None:
    over_at = clock.now() + A_DAY
    await promote(backend, userIds=[fan.id], expiresAt=over_at.isoformat())
    sale, _ = await arrived(fan, 2)
    assert await unread_count(fan) == 2
    clock.shift += A_DAY
    assert await titles(fan) == ["Welcome, Some Body!"]
    assert await unread_count(fan) == 1
    for document in (notices.READ, notices.ARCHIVE):
        assert (await refused(fan.ask(document, id=sale["id"]))).code == "NOT_FOUND"
    marked = (await fan.ask(notices.READ_ALL))["markAllNotificationsRead"]
    assert marked == {"marked": 1, "unreadCount": 0}


async def test_a_promotion_that_is_over_already_is_refused(
    clock: ShiftedClock, backend: Wire, fan: Wire
) -> None:
    past = (clock.now() - timedelta(seconds=1)).isoformat()
    error = await refused(promote(backend, userIds=[fan.id], expiresAt=past))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "input.expiresAt")


async def keep(backend: Wire, **names: str) -> None:
    """Tell the catalogue of products by their ids; the category is the name's first word."""
    products = [
        {"productId": id, "name": name, "category": name.split()[0]} for id, name in names.items()
    ]
    await backend.ask_all(PRODUCT, [{"input": product} for product in products])


async def bought(backend: Wire, somebody: Wire, products: Sequence[str]) -> None:
    acts = [{"kind": "PURCHASE", "productId": id, "userId": somebody.id} for id in products]
    await backend.ask_all(TRACK, [{"input": act} for act in acts])


@pytest.fixture
async def range_(clock: ShiftedClock, house: House, backend: Wire, ann: Wire) -> list[str]:
    """Twelve products that two others bought together with the first, which Ann has.

    All at one instant: the median crowd would else fall among products a millisecond apart.
    """
    tag = uuid4().hex[:6]
    kinds = ("Tent", "Boot", "Rope", "Lamp", "Stove", "Map")
    names = {f"{kind}{n}_{tag}": f"{kind} {n}" for kind in kinds for n in (1, 2)}
    await keep(backend, **names)
    others = [await customer(house) for _ in range(2)]
    with clock.stopped():
        for one in others:
            async with wired(one) as other:
                await bought(backend, other, list(names))
        await bought(backend, ann, [f"Tent1_{tag}"])
    await all_is_handled(house, backend)
    return list(names)


async def test_what_others_bought_together_is_recommended_with_the_reason(
    ann: Wire, range_: list[str]
) -> None:
    found = (await ann.ask(PICKS, first=4))["recommendations"]
    assert len(found) == 4
    assert {one["productId"] for one in found} < set(range_)
    assert all(0 < one["score"] <= 1 for one in found)
    assert {one["reason"] for one in found} == {"Bought together with Tent 1"}
    assert (await ann.ask(PICKS, first=0))["recommendations"] == []


@pytest.mark.parametrize("first", [-1, 21])
async def test_no_more_than_twenty_recommendations_are_asked_for(ann: Wire, first: int) -> None:
    error = await refused(ann.ask(PICKS, first=first))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "first")


async def test_recommendations_are_sent_as_one_notification(ann: Wire, range_: list[str]) -> None:
    expected = (await ann.ask(PICKS))["recommendations"]
    answer = (await ann.ask(SEND_PICKS))["createRecommendations"]
    assert answer["decision"] == {"outcome": "SENT", "reason": "ACCEPTED", "until": None}
    sent = answer["notification"]
    assert sent["type"] == "RECOMMENDATION"
    assert sent["content"]["products"] == expected
    assert 3 <= len(expected) <= 5
    assert expected[0]["name"] in sent["body"]
    assert await nodes(ann) == [sent]


async def test_nothing_is_recommended_twice_within_two_weeks(
    clock: ShiftedClock, ann: Wire, range_: list[str]
) -> None:
    first = await sent_products(ann)
    second = await sent_products(ann)
    assert not first & second
    clock.shift += RECOMMENDED_LATELY - A_DAY
    assert not first & await sent_products(ann)
    clock.shift += 2 * A_DAY
    assert first & await sent_products(ann)


async def sent_products(somebody: Wire) -> set[str]:
    answer = (await somebody.ask(SEND_PICKS))["createRecommendations"]
    if answer["notification"] is None:
        assert answer["decision"]["reason"] == "TOO_FEW_CANDIDATES"
        return set()
    return {one["productId"] for one in answer["notification"]["content"]["products"]}


async def test_who_wants_no_recommendations_gets_none(ann: Wire, range_: list[str]) -> None:
    await ann.ask(PREFER, input={"types": [{"type": "RECOMMENDATION", "enabled": False}]})
    answer = (await ann.ask(SEND_PICKS))["createRecommendations"]
    assert answer["notification"] is None
    assert answer["decision"]["reason"] == "TYPE_OFF"


async def test_recommendations_for_another_are_for_the_backend_to_send(
    house: House, backend: Wire, ann: Wire, range_: list[str]
) -> None:
    answer = (await backend.ask(SEND_PICKS, userId=ann.id))["createRecommendations"]
    assert answer["notification"]["userId"] == ann.id
    async with wired(await customer(house)) as eve:
        assert (await refused(eve.ask(SEND_PICKS, userId=ann.id))).code == "FORBIDDEN"


async def test_a_request_for_recommendations_is_answered_once_to_whom_it_names(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire, range_: list[str]
) -> None:
    expected = (await ann.ask(PICKS))["recommendations"]
    request = Event.of(RecommendationsRequested(user_ids=(ann.id, "6" * 24)), time=clock.now())
    for _ in range(2):
        await house.runtime.bus.publish([request])
        await all_is_handled(house, backend)
    [sent] = await nodes(ann)
    products = sent["content"]["products"]
    scores = [one.pop("score") for one in expected]  # they fade, if slowly
    assert [one.pop("score") for one in products] == pytest.approx(scores, abs=0.001)
    assert products == expected


class SlowGatherer(Gatherer):
    """Something happens while it seeks."""

    def __init__(self, settings: Settings, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(settings)
        self._meanwhile = meanwhile

    async def recommendations(self, *arguments: Any) -> Sequence[Recommendation]:
        found = await super().recommendations(*arguments)
        await self._meanwhile()
        return found


async def test_who_refuses_recommendations_while_they_are_sought_gets_none(
    clock: ShiftedClock, house: House, ann: Wire, range_: list[str]
) -> None:
    runtime = house.runtime
    for enabled, sent in ((False, 0), (True, 1)):
        choice = {"types": [{"type": "RECOMMENDATION", "enabled": enabled}]}
        gatherer = SlowGatherer(runtime.settings, partial(ann.ask, PREFER, input=choice))
        handlers = NotificationHandlers(
            runtime.announcing,
            runtime.scheduling,
            runtime.texts,
            clock,
            runtime.settings,
            gatherer,
        ).table()
        request = Event.of(RecommendationsRequested(user_ids=(ann.id,)), time=clock.now())
        await handlers[request.type]([request])
        assert len(await nodes(ann)) == sent


async def test_recommendations_for_many_are_decided_few_at_a_time(
    clock: ShiftedClock, house: House, ann: Wire, range_: list[str]
) -> None:
    """The first have theirs while those for the last are still to be sought."""
    runtime = house.runtime
    sought: list[int] = []

    async def note() -> None:
        sought.append(len(await nodes(ann)))

    others = [(await house.somebody()).id for _ in range(60)]
    handlers = NotificationHandlers(
        runtime.announcing,
        runtime.scheduling,
        runtime.texts,
        clock,
        runtime.settings,
        SlowGatherer(runtime.settings, note),
    ).table()
    everyone = RecommendationsRequested(user_ids=(ann.id, *others))
    request = Event.of(everyone, time=clock.now())
    await handlers[request.type]([request])
    assert sought[0] == 0
    assert sought[-1] == 1


async def test_a_product_is_recommended_under_its_latest_name(
    house: House, backend: Wire, ann: Wire, range_: list[str]
) -> None:
    await keep(backend, **{range_[0]: "Tent Deluxe", range_[2]: "Boot Deluxe"})
    await all_is_handled(house, backend)
    found = (await ann.ask(PICKS, first=20))["recommendations"]
    assert "Bought together with Tent Deluxe" in {one["reason"] for one in found}
    assert {one["name"] for one in found if one["productId"] == range_[2]} == {"Boot Deluxe"}


async def test_what_the_catalogue_lacks_is_never_recommended(
    house: House, backend: Wire, ann: Wire, range_: list[str]
) -> None:
    async with wired(await customer(house)) as other:
        await bought(backend, other, [range_[0], *(f"unknown-{n}" for n in range(5))])
    found = (await ann.ask(PICKS, first=20))["recommendations"]
    assert not [one for one in found if one["productId"].startswith("unknown")]


async def test_of_many_words_on_new_products_at_the_same_moment_the_newest_stays(
    house: House,
) -> None:
    now = house.runtime.clock.now()
    ids = [uuid4().hex for _ in range(500)]

    async def say(age: int) -> None:
        said = [ProductChanged(product_id=id, name=f"{age}", category="Tents") for id in ids]
        await keep_products([(one, now - age * A_DAY) for one in said])

    await asyncio.gather(*map(say, (3, 1, 4, 0, 5, 2)))
    known = await Product.known(ids)
    assert [known[id].name for id in ids] == ["0"] * len(ids)


@pytest.mark.parametrize("room", [300, 100])  # an envelope takes 100 to 300 bytes
async def test_an_event_is_measured_with_its_envelope(house: House, room: int) -> None:
    """A worker measures the whole, and what was accepted must not be too much for it."""
    size = house.runtime.settings.max_event_bytes - room
    ids = ("u" * 60,) * ((size - 200) // 63)
    data = PromotionAnnounced(title="t", body="b", user_ids=ids)
    data = replace(data, body="b" * (1 + size - len(msgspec.json.encode(data))))
    assert len(msgspec.json.encode(data)) == size
    accepting = house.runtime.intake.accept(data, source="urn:shop", event_id=None)
    if room == 300:
        await accepting
    else:
        with pytest.raises(BadInput, match="MAX_EVENT_BYTES"):
            await accepting
