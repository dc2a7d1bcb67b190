"""What the notifications service does when it hears of something: whole batches at a time."""

from __future__ import annotations

from asyncio import Task, create_task, gather
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from services.notifications import catalogue, recommend, templates
from services.notifications.announcing import Announcing
from services.notifications.collapse import Collapse, Rank
from services.notifications.drafts import Draft, Offer, recommendation_draft
from services.notifications.gather import Gatherer
from services.notifications.scheduling import Scheduling
from services.notifications.templates import Words
from services.notifications.wording import Texts
from services.shared.bus import Handler, Handlers
from services.shared.clock import Clock
from services.shared.content import composed, json_size
from services.shared.errors import BadInput, NotFound
from services.shared.events import (
    Event,
    OrderStatusChanged,
    ProductChanged,
    PromotionAnnounced,
    RecommendationsRequested,
    UserRegistered,
)
from services.shared.failpoints import Failpoint, reach
from services.shared.settings import Settings
from services.shared.tasks import let_others_run
from services.shared.vocabulary import NotificationType
from services.shared.worker import when_back
from services.users.models import Activity
from services.users.recipients import Customer, Recipient

_STORED_AT_ONCE: Final = 3  # parts of a promotion
_RECOMMENDED_AT_ONCE: Final = 50  # users; each takes some queries


class NotificationHandlers:
    def __init__(
        self,
        announcing: Announcing,
        scheduling: Scheduling,
        texts: Texts,
        clock: Clock,
        settings: Settings,
        gatherer: Gatherer | None = None,
    ) -> None:
        self._announcing = announcing
        self._texts = texts
        self._scheduling = scheduling
        self._gatherer = gatherer or Gatherer(settings)
        self._clock = clock
        self._chunk = settings.fan_out_size
        self._most_bytes = settings.max_content_bytes

    def table(self) -> Handlers:
        handlers: dict[str, Handler] = {
            UserRegistered.type: self.on_user_registered,
            ProductChanged.type: self.on_product_changed,
            OrderStatusChanged.type: self.on_order_status_changed,
            PromotionAnnounced.type: self.on_promotion_announced,
            RecommendationsRequested.type: self.on_recommendations_requested,
        }
        return handlers

    async def on_user_registered(self, events: Sequence[Event]) -> None:
        ids = [event.read(UserRegistered).user_id for event in events]
        await self._announce_to_their_users(events, ids, _welcome)

    async def on_order_status_changed(self, events: Sequence[Event]) -> None:
        orders = [event.read(OrderStatusChanged) for event in events]
        contents = {event.key: _order_content(event.read(OrderStatusChanged)) for event in events}
        size = max(map(json_size, contents.values()))
        await self._scheduling.cancel_on_orders(events)
        if size > self._most_bytes:
            raise BadInput(
                f"The order makes a content of {size} bytes; {self._most_bytes} is the most "
                "(MAX_CONTENT_BYTES). Store large details elsewhere and send a link.",
                "data.details",
            )
        ids = [order.user_id for order in orders]
        order_update = partial(_order_update, contents=contents, now=self._clock.now())
        await self._announce_to_their_users(events, ids, order_update)

    async def on_promotion_announced(self, events: Sequence[Event]) -> None:
        for event in events:
            async with aclosing(self._offers(event)) as offers:
                await self._announce_each(offers)

    async def on_recommendations_requested(self, events: Sequence[Event]) -> None:
        for event in events:
            request = event.read(RecommendationsRequested)
            crowd = await self._gatherer.crowd(self._clock.now())
            async for user_ids in self._active_or(request):
                drafts = []
                for user_id, user in (await Recipient.by_ids(user_ids)).items():
                    found = await self._gatherer.recommendations(
                        user_id, crowd, 5, self._clock.now()
                    )
                    if len(found) >= recommend.FEWEST_WORTH_SENDING:
                        words = self._texts.words(user)
                        drafts.append(recommendation_draft(user_id, event.key, found, words))
                await self._announce_to_those_who_are(drafts)
                reach(Failpoint.IN_FAN_OUT)

    async def on_product_changed(self, events: Sequence[Event]) -> None:
        await catalogue.keep_products(
            [(event.read(ProductChanged), event.time) for event in events]
        )

    async def _offers(self, event: Event) -> AsyncGenerator[Sequence[Draft], None]:
        promotion = event.read(PromotionAnnounced)
        offer = Offer(event.key, promotion)
        async with aclosing(self._everyone_or(promotion.user_ids)) as everyone:
            async for customers in everyone:
                yield await offer.drafts(customers, self._texts)

    async def _announce_each(self, parts: AsyncIterator[Sequence[Draft]]) -> None:
        """While the database stores three parts the next one is worded. What keeps one from being
        stored does not have those before it announced again."""
        storing: deque[Task[None]] = deque()

        async def end_first() -> None:
            await storing[0]
            storing.popleft()
            reach(Failpoint.IN_FAN_OUT)

        try:
            async for drafts in parts:
                if len(storing) == _STORED_AT_ONCE:
                    await end_first()
                announcing = partial(self._announce_to_those_who_are, drafts)
                storing.append(create_task(when_back(announcing, PromotionAnnounced.type)))
            while storing:
                await end_first()
        finally:
            for task in storing:
                task.cancel()
            await gather(*storing, return_exceptions=True)

    async def _announce_to_those_who_are(self, drafts: Sequence[Draft]) -> None:
        """With their preferences of this moment: to make the drafts took a while."""
        users = await Recipient.by_ids({draft.user_id for draft in drafts})
        still_there = [draft for draft in drafts if draft.user_id in users]
        await self._announcing.announce(still_there, users)

    async def _announce_to_their_users(
        self,
        events: Sequence[Event],
        user_ids: Sequence[str],
        draft: Callable[[Event, Words], Draft],
    ) -> None:
        """Raises NotFound when a user does not exist: the event's sender is mistaken."""
        users = await Recipient.by_ids(set(user_ids))
        for user_id in user_ids:
            if user_id not in users:
                raise NotFound(f"There is no user {user_id}.")
        drafts: list[Draft] = []
        for event, user_id in zip(events, user_ids, strict=True):
            drafts.append(draft(event, self._texts.words(users[user_id])))
            await let_others_run(len(drafts))
        await self._announcing.announce(drafts, users)

    async def _everyone_or(
        self, user_ids: Sequence[str] | None
    ) -> AsyncGenerator[Sequence[Customer], None]:
        if user_ids is not None:
            for start in range(0, len(user_ids), self._chunk):
                yield await Customer.by_ids(user_ids[start : start + self._chunk])
            return
        after: str | None = None
        while customers := await Customer.audience(after, self._chunk):
            after = customers[-1].id
            yield customers

    async def _active_or(self, request: RecommendationsRequested) -> AsyncIterator[Sequence[str]]:
        size = min(self._chunk, _RECOMMENDED_AT_ONCE)
        if request.user_ids is not None:
            for start in range(0, len(request.user_ids), size):
                yield request.user_ids[start : start + size]
            return
        since = self._clock.now() - timedelta(days=request.active_within_days)
        after: str | None = None
        while user_ids := await Activity.active_users(since, after, size):
            after = user_ids[-1]
            yield user_ids


def _welcome(event: Event, words: Words) -> Draft:
    user = event.read(UserRegistered)
    text = templates.welcome_text(user, words)
    content = {"title": text.title, "body": text.body}
    return Draft(user.user_id, event.key, NotificationType.PROMOTION, text, content)


def _order_update(
    event: Event, words: Words, contents: Mapping[str, dict[str, Any]], now: datetime
) -> Draft:
    """A status of a time to come counts as of now: it must not outrank those until then.

    `contents`: by the events' keys.
    """
    order = event.read(OrderStatusChanged)
    return Draft(
        user_id=order.user_id,
        event=event.key,
        type=NotificationType.ORDER_UPDATE,
        text=templates.order_text(order, words),
        content=contents[event.key],
        status=order.status,
        collapse=Collapse(
            f"order:{order.order_id}", Rank.of(order.version, min(event.time, now), event.key)
        ),
    )


def _order_content(order: OrderStatusChanged) -> dict[str, Any]:
    content = {"orderId": order.order_id, "status": composed(order.status)}
    optional = {"version": order.version, "details": composed(order.details)}
    return content | {key: value for key, value in optional.items() if value is not None}
