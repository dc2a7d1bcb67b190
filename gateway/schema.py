"""The schema: every type of the API, joined. `schema.graphql` is exported from here."""

from __future__ import annotations

from typing import Any

import strawberry
from graphql import ASTValidationRule, NoSchemaIntrospectionCustomRule
from graphql.execution import Executor as GraphQLExecutor
from strawberry.extensions import AddValidationRules, MaxTokensLimiter

from gateway.access import AccessMutation, AccessQuery
from gateway.broadcasts import BroadcastMutation, BroadcastQuery, BroadcastSubscription
from gateway.compiled import Compiled, CompiledExecutor
from gateway.consents import ConsentMutation, ConsentQuery
from gateway.cost import CostLimit
from gateway.dead_letters import DeadLetterMutation, DeadLetterQuery
from gateway.documents import LONGEST_KEPT, KnownDocuments, KnownToBeValid, OneOperation
from gateway.errors import MapErrors
from gateway.events import EventMutation
from gateway.explanations import ExplanationQuery
from gateway.limits import DocumentLimits
from gateway.notifications import (
    NotificationMutation,
    NotificationQuery,
    NotificationSubscription,
)
from gateway.operations import OperationsQuery
from gateway.ready import ReadyOperations
from gateway.scheduled import ScheduledMutation, ScheduledQuery
from gateway.schedules import ScheduleMutation, ScheduleQuery
from gateway.shapes import Shapes
from gateway.streams import StreamingSchema
from gateway.tags import TagMutation
from gateway.texts import TextMutation, TextQuery
from gateway.users import UserMutation, UserQuery
from services.shared.settings import Settings


@strawberry.type(description="What one may ask.")
class Query(
    UserQuery,
    AccessQuery,
    ConsentQuery,
    NotificationQuery,
    ExplanationQuery,
    ScheduledQuery,
    BroadcastQuery,
    ScheduleQuery,
    TextQuery,
    OperationsQuery,
    DeadLetterQuery,
):
    pass


@strawberry.type(description="What one may do.")
class Mutation(
    UserMutation,
    TagMutation,
    AccessMutation,
    ConsentMutation,
    NotificationMutation,
    ScheduledMutation,
    BroadcastMutation,
    EventMutation,
    ScheduleMutation,
    TextMutation,
    DeadLetterMutation,
):
    pass


@strawberry.type(description="What one may follow, over a websocket (graphql-transport-ws).")
class Subscription(NotificationSubscription, BroadcastSubscription):
    pass


def make_schema(settings: Settings) -> strawberry.Schema:
    """The schema with the settings' limits."""

    rules: list[type[ASTValidationRule]] = []
    if settings.in_production:
        rules.append(NoSchemaIntrospectionCustomRule)

    kept = ReadyOperations(settings)

    class Schema(StreamingSchema):
        ready = kept
        shapes = Shapes()

    class Executor(_Executor):
        compiled = Compiled(settings.kept_documents, LONGEST_KEPT)

    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=[
            lambda: MapErrors(settings),
            lambda: MaxTokensLimiter(max_token_count=settings.max_query_tokens),
            lambda: AddValidationRules(rules),
            lambda: DocumentLimits(settings),
            lambda: KnownDocuments(maxsize=settings.kept_documents),
            lambda: KnownToBeValid(maxsize=settings.kept_documents),
            OneOperation,
            lambda: CostLimit(settings),
        ],
        execution_context_class=Executor,
    )


class _Executor(CompiledExecutor):
    """Forgets an event of a subscription when it is told.

    graphql-core 3.3 shares what it remembers of collected fields among all events of a
    subscription, by keys that are new for each: some 3 KB an event, as long as it is open.
    """

    def build_per_event_executor(self, payload: Any) -> GraphQLExecutor[Any]:
        executor = super().build_per_event_executor(payload)
        executor._relevant_sub_fields = {}
        return executor
