"""Tags of users, as a shop's backend gives them."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry import ID

from gateway.context import Info, only
from gateway.enums import Role, Scope


@strawberry.type
class TagMutation:
    @strawberry.mutation(
        description="Give a user these tags instead of those they had; answers how they are kept: "
        "each once, sorted. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.TAG_USERS),
    )
    async def set_user_tags(
        self,
        info: Info,
        user_id: Annotated[ID, strawberry.argument(description="The user's id.")],
        tags: Annotated[
            list[str], strawberry.argument(description="Words of the shop's own: vip, newsletter.")
        ],
    ) -> list[str]:
        return list(await info.context.services.users.set_tags(user_id, tags))
