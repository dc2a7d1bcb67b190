"""The schema: every type of the API, joined. `schema.graphql` is exported from here."""

from __future__ import annotations

from typing import Any

import strawberry
from graphql.execution import Executor
from strawberry.extensions import AddValidationRules, MaxTokensLimiter
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.documents import KnownDocuments, KnownToBeValid
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
            lambda: KnownDocuments(maxsize=settings.kept_documents),
            lambda: KnownToBeValid(maxsize=settings.kept_documents),
        ],
        execution_context_class=_Executor,
    )


class _Executor(StrawberryGraphQLCoreExecutionContext):
    """Forgets an event of a subscription when it is told.

    graphql-core 3.3 shares what it remembers of collected fields among all events of a
    subscription, by keys that are new for each: some 3 KB an event, as long as it is open.
    """

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}
        return executor


class _Schema(strawberry.Schema):
    """A schema that logs nothing itself: MapErrors logs what is unexpected, once."""

    def process_errors(self, *_: object, **__: object) -> None:
        return
