"""Events that a shop's backend publishes through GraphQL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID
from strawberry.scalars import JSON

from gateway.context import Info, only
from gateway.enums import Role, Scope
from services.shared.events import Data, OrderStatusChanged, ProductChanged, PromotionAnnounced


@strawberry.type(description="An event was durably accepted.")
class Accepted:
    event_id: ID = strawberry.field(
        description="The event's id; the same one again changes nothing."
    )


@strawberry.input(description="An order moved.")
class OrderStatusInput:
    order_id: ID = strawberry.field(description="The shop's own id of the order.")
    user_id: ID = strawberry.field(description="Whose order it is.")
    status: str = strawberry.field(
        description="placed, paid, packed, shipped, delivered, cancelled, refunded, "
        "payment_failed, or any word of the shop's own."
    )
    version: int | None = strawberry.field(
        default=None,
        description="Rises with every status of the order, whose notification shows the highest. "
        "Give all of an order's statuses one, or none: then the latest is shown.",
    )
    details: JSON | None = strawberry.field(
        default=None, description="Anything else; it is passed on in the content."
    )
    event_id: ID | None = strawberry.field(
        default=None, description="The caller's own id of the event; makes repeating harmless."
    )


@strawberry.input(description="A promotion starts.")
class PromotionInput:
    title: str = strawberry.field(description="1 to 500 characters.")
    body: str = strawberry.field(description="1 to 5,000 characters.")
    user_ids: list[ID] | None = strawberry.field(
        default=None, description="For whom; null: everyone who accepts promotions."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it is over, and disappears."
    )
    event_id: ID | None = strawberry.field(
        default=None, description="The caller's own id of the event; makes repeating harmless."
    )


@strawberry.input(description="A product of the shop's catalogue.")
class ProductInput:
    product_id: ID = strawberry.field(description="The shop's own id.")
    name: str = strawberry.field(description="1 to 500 characters.")
    category: str = strawberry.field(description="1 to 500 characters.")
    event_id: ID | None = strawberry.field(
        default=None, description="The caller's own id of the event; makes repeating harmless."
    )


@strawberry.type
class EventMutation:
    @strawberry.mutation(
        description="Tell that an order moved. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.PUBLISH_ORDERS),
    )
    async def publish_order_status(
        self,
        info: Info,
        input: Annotated[OrderStatusInput, strawberry.argument(description="What happened.")],
    ) -> Accepted:
        order = OrderStatusChanged(
            order_id=input.order_id,
            user_id=input.user_id,
            status=input.status,
            version=input.version,
            details=input.details,
        )
        return await _accept(info, order, input.event_id)

    @strawberry.mutation(
        description="Start a promotion. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.PUBLISH_PROMOTIONS),
    )
    async def publish_promotion(
        self,
        info: Info,
        input: Annotated[PromotionInput, strawberry.argument(description="The promotion.")],
    ) -> Accepted:
        promotion = PromotionAnnounced(
            title=input.title,
            body=input.body,
            user_ids=tuple(input.user_ids) if input.user_ids is not None else None,
            expires_at=input.expires_at,
        )
        return await _accept(info, promotion, input.event_id)

    @strawberry.mutation(
        description="Tell of a product that is new in the catalogue, or has changed: only what "
        "the catalogue holds is recommended. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.PUBLISH_PRODUCTS),
    )
    async def publish_product(
        self,
        info: Info,
        input: Annotated[ProductInput, strawberry.argument(description="The product.")],
    ) -> Accepted:
        product = ProductChanged(
            product_id=input.product_id, name=input.name, category=input.category
        )
        return await _accept(info, product, input.event_id)


async def _accept(info: Info, data: Data, event_id: ID | None) -> Accepted:
    accepted = await info.context.services.intake.accept(
        data, source=await info.context.source(), event_id=event_id
    )
    return Accepted(event_id=ID(accepted))
