"""The schema: every type of the API, joined. `schema.graphql` is exported from here."""

from __future__ import annotations

import strawberry
from strawberry.extensions import AddValidationRules, MaxTokensLimiter

from gateway.errors import MapErrors
from gateway.events import EventMutation
from gateway.limits import limits_rule
from gateway.notifications import (
    NotificationMutation,
    NotificationQuery,
    NotificationSubscription,
)
from gateway.schedules import ScheduleMutation, ScheduleQuery
from gateway.users import UserMutation, UserQuery
from services.shared.settings import Settings


@strawberry.type(description="What one may ask.")
class Query(UserQuery, NotificationQuery, ScheduleQuery):
    pass


@strawberry.type(description="What one may do.")
class Mutation(UserMutation, NotificationMutation, EventMutation, ScheduleMutation):
    pass


@strawberry.type(description="What one may follow, over a websocket (graphql-transport-ws).")
class Subscription(NotificationSubscription):
    pass


def make_schema(settings: Settings) -> strawberry.Schema:
    """The schema with the settings' limits."""

    rule = limits_rule(settings)
    return _Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=[
            MapErrors,
            lambda: MaxTokensLimiter(max_token_count=settings.max_query_tokens),
            lambda: AddValidationRules([rule]),
        ],
    )


class _Schema(strawberry.Schema):
    """A schema that logs nothing itself: MapErrors logs what is unexpected, once."""

    def process_errors(self, *_: object, **__: object) -> None:
        return
