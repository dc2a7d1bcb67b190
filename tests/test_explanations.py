"""Why something came, or did not: told to whom it concerns, in words, while it is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.shared.events import Event, OrderStatusChanged, PromotionAnnounced
from services.shared.vocabulary import Role
from tests.kit import House, ShiftedClock, Somebody
from tests.notices import Wire, create, customer, nodes, refused, wired
from tests.servers import until

STEPS = """type messageClass channel outcome reason preferencesVersion title notificationId
    steps { rule spoke words }"""
EXPLAIN = f"query($id: ID!) {{ explain(notificationId: $id) {{ {STEPS} }} }}"
DECISIONS = f"""query($first: Int, $after: String) {{ decisions(first: $first, after: $after) {{
    edges {{ cursor node {{ {STEPS} }} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
EVENT = f"""query($event: ID!, $user: ID!) {{
    explainEvent(eventId: $event, userId: $user) {{ {STEPS} }} }}"""
DRY_RUN = f"""query($user: ID!, $type: NotificationType!, $channel: Channel!, $at: DateTime) {{
    decideDryRun(userId: $user, type: $type, channel: $channel, at: $at) {{
      {STEPS} until at }} }}"""
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"


@pytest.fixture(scope="module")
async def admin(house: House) -> Somebody:
    return await house.somebody(Role.ADMIN)


@pytest.fixture
async def ann(house: House) -> AsyncIterator[Wire]:
    """She wants no promotions, and so was not welcomed."""
    async with wired(await customer(house)) as ann:
        await until(lambda: titles(ann))
        yield ann


async def titles(somebody: Wire) -> list[str]:
    """Of what did not come, the newest first."""
    edges = (await somebody.ask(DECISIONS))["decisions"]["edges"]
    return [edge["node"]["title"] for edge in edges]


def spoken(explanation: Any) -> list[tuple[str, bool]]:
    return [(step["rule"], step["spoke"]) for step in explanation["steps"]]


async def test_what_came_is_explained(backend: Wire, ann: Wire) -> None:
    id = (await create(backend, ann.id))["notification"]["id"]
    found = (await ann.ask(EXPLAIN, id=id))["explain"]
    assert (found["outcome"], found["reason"]) == ("SENT", "LOCKED_CHANNEL")
    assert (found["messageClass"], found["channel"]) == ("TRANSACTIONAL", "IN_APP")
    rules = ["EXPIRY", "COLLAPSE", "CRITICAL", "LOCK"]
    assert spoken(found) == [(rule, rule == "LOCK") for rule in rules]
    assert found["steps"][-1]["words"] == "Updates of orders in the app can't be switched off."
    assert found["notificationId"] == id


async def test_what_did_not_come_is_explained(backend: Wire, ann: Wire) -> None:
    for n in range(3):
        answer = await create(backend, ann.id, type="PROMOTION", title=f"Sale {n}")
        assert answer["notification"] is None
    page = (await ann.ask(DECISIONS, first=2))["decisions"]
    assert [edge["node"]["title"] for edge in page["edges"]] == ["Sale 2", "Sale 1"]
    assert page["pageInfo"]["hasNextPage"] is True
    found = page["edges"][0]["node"]
    assert (found["outcome"], found["reason"]) == ("SUPPRESSED", "TYPE_OFF")
    assert spoken(found)[-1] == ("TYPE", True)
    assert found["steps"][-1]["words"] == "You switched promotions off."
    preferences = (await ann.ask("{ preferences { version } }"))["preferences"]
    assert found["preferencesVersion"] == preferences["version"]
    rest = (await ann.ask(DECISIONS, after=page["pageInfo"]["endCursor"]))["decisions"]
    assert [edge["node"]["title"] for edge in rest["edges"]] == ["Sale 0", "Welcome, Some Body!"]
    assert rest["pageInfo"]["hasNextPage"] is False


@pytest.mark.parametrize("cursor", ["", "x", "0" * 23])
async def test_a_cursor_that_is_none_is_refused(ann: Wire, cursor: str) -> None:
    error = await refused(ann.ask(DECISIONS, after=cursor))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "after")


async def test_an_event_that_comes_again_is_decided_once(house: House, ann: Wire) -> None:
    sale = PromotionAnnounced(title="Sale", body="b", user_ids=(ann.id,))
    order = OrderStatusChanged(order_id="1", user_id=ann.id, status="paid")
    now = house.runtime.clock.now()
    event = Event.of(sale, time=now)
    for _ in range(2):
        await house.runtime.bus.publish([event])
    await house.runtime.bus.publish([Event.of(order, time=now)])
    await until(lambda: nodes(ann))  # and so all before it has been handled
    assert await titles(ann) == ["Sale", "Welcome, Some Body!"]


async def test_what_comes_when_it_is_asked_for_again_is_told_as_what_came(
    backend: Wire, ann: Wire, admin: Somebody
) -> None:
    sale = {"type": "PROMOTION", "dedupKey": uuid4().hex, "title": "Sale"}
    assert (await create(backend, ann.id, **sale))["notification"] is None
    assert (await titles(ann))[0] == "Sale"
    wanted = {"types": [{"type": "PROMOTION", "enabled": True}]}
    prefer = "mutation($i: PreferencesInput!) { updatePreferences(input: $i) { version } }"
    await ann.ask(prefer, i=wanted)
    assert (await create(backend, ann.id, **sale))["notification"] is not None
    assert "Sale" not in await titles(ann)
    asked = {"event": sale["dedupKey"], "user": ann.id}
    [found] = (await admin.api.ask(EVENT, **asked))["explainEvent"]
    assert found["outcome"] == "SENT"


@pytest.mark.parametrize("event", ["", "\x00", "x" * 100_000, "(", "\\"])
async def test_an_event_that_never_was_has_no_explanation(
    ann: Wire, admin: Somebody, event: str
) -> None:
    assert (await admin.api.ask(EVENT, event=event, user=ann.id))["explainEvent"] == []


async def test_an_admin_finds_what_became_of_an_event(
    house: House, backend: Wire, ann: Wire, admin: Somebody
) -> None:
    event = f"a.b*{uuid4().hex}"
    order = {"orderId": "1", "userId": ann.id, "status": "payment_failed", "eventId": event}
    await backend.ask(ORDER, input=order)

    async def found() -> Any:
        return (await admin.api.ask(EVENT, event=event, user=ann.id))["explainEvent"]

    [one] = await until(found)
    assert (one["messageClass"], one["reason"]) == ("CRITICAL", "CRITICAL")
    assert one["notificationId"] is not None
    async with wired(await customer(house)) as other:
        assert (await admin.api.ask(EVENT, event=event, user=other.id))["explainEvent"] == []
    assert (await admin.api.ask(EVENT, event=".*", user=ann.id))["explainEvent"] == []


async def test_a_decision_is_tried_without_sending_anything(ann: Wire, admin: Somebody) -> None:
    for type_, channel, reason in (
        ("PROMOTION", "IN_APP", "TYPE_OFF"),
        ("ORDER_UPDATE", "IN_APP", "LOCKED_CHANNEL"),
        ("RECOMMENDATION", "EMAIL", "CHANNEL_OFF"),
    ):
        asked = {"user": ann.id, "type": type_, "channel": channel}
        found = (await admin.api.ask(DRY_RUN, **asked, at="2030-01-01T00:00:00Z"))["decideDryRun"]
        assert found["reason"] == reason
        assert found["at"] == "2030-01-01T00:00:00+00:00"
    assert await titles(ann) == ["Welcome, Some Body!"]
    for at in ("2030-01-01T00:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"):
        error = await refused(admin.api.ask(DRY_RUN, **asked, at=at))
        assert (error.code, error.field) == ("BAD_USER_INPUT", "at")


@pytest.mark.parametrize(
    ("at", "action", "decision"),
    [
        ("2026-07-01T19:59:00Z", "DEFER", ("SENT", "ACCEPTED", None)),
        (
            "2026-07-01T20:00:00Z",
            "DEFER",
            ("HELD", "QUIET_HOURS", "2026-07-02T05:00:00+00:00"),
        ),
        ("2026-07-02T04:59:59Z", "DROP", ("SUPPRESSED", "QUIET_HOURS", None)),
        ("2026-07-02T05:00:00Z", "DROP", ("SENT", "ACCEPTED", None)),
    ],
)
async def test_quiet_hours_hold_or_drop_marketing(
    ann: Wire, admin: Somebody, at: str, action: str, decision: tuple[str, str, str | None]
) -> None:
    night = {"channel": "EMAIL", "action": action}
    wishes = {
        "timezone": "Europe/Vienna",
        "types": [
            {"type": type_, "enabled": True, "channels": [{"channel": "EMAIL", "enabled": True}]}
            for type_ in ("PROMOTION", "ORDER_UPDATE")
        ],
        "quietHours": [night | {"windows": [{"start": "22:00", "end": "07:00"}]}],
    }
    prefer = "mutation($i: PreferencesInput!) { updatePreferences(input: $i) { version } }"
    await ann.ask(prefer, i=wishes)
    asked = {"user": ann.id, "channel": "EMAIL", "at": at}
    found = (await admin.api.ask(DRY_RUN, **asked, type="PROMOTION"))["decideDryRun"]
    assert (found["outcome"], found["reason"], found["until"]) == decision
    order = (await admin.api.ask(DRY_RUN, **asked, type="ORDER_UPDATE"))["decideDryRun"]
    assert (order["outcome"], order["reason"]) == ("SENT", "ACCEPTED")


async def test_what_was_decided_long_ago_is_forgotten(
    house: House, clock: ShiftedClock, backend: Wire, ann: Wire, admin: Somebody
) -> None:
    settings = house.runtime.settings
    id = (await create(backend, ann.id))["notification"]["id"]
    await create(backend, ann.id, type="PROMOTION")
    row = await house.runtime.store.database["traces"].find_one(
        {"user_id": ann.id, "title": "An offer for you"}
    )
    assert row is not None
    life = timedelta(seconds=settings.trace_seconds)
    assert abs(row["forget_at"] - (row["decision"]["at"] + life)) < timedelta(seconds=1)
    assert (await ann.ask(EXPLAIN, id=id))["explain"] is not None
    rows = house.runtime.store.database["notifications"]
    long_ago = clock.now() - life - timedelta(seconds=1)
    await rows.update_one({"user_id": ann.id}, {"$set": {"decision.at": long_ago}})
    assert (await ann.ask(EXPLAIN, id=id))["explain"] is None
    traces = house.runtime.store.database["traces"]
    await traces.update_many({"user_id": ann.id}, {"$set": {"decision.at": long_ago}})
    assert await titles(ann) == []
