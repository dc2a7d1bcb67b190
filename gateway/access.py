"""Who may come in, as GraphQL shows it: logins, sessions, passwords, and API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID

from gateway.context import Info, only
from gateway.enums import Role, Scope
from gateway.users import PreferencesInput, User
from services.shared.errors import BadInput
from services.users import credentials, sessions
from services.users.preferences import Wishes
from services.users.service import Registration


@strawberry.type(description="A session that was just opened or renewed.")
class AuthPayload:
    access_token: str = strawberry.field(
        description="Send it as `Authorization: Bearer …`, over HTTP or in connection_init."
    )
    refresh_token: str = strawberry.field(description="Buys new tokens, once: see refreshSession.")
    expires_at: datetime = strawberry.field(description="The end of the access token.")
    user: User = strawberry.field(description="Who is logged in.")

    @classmethod
    def of(cls, login: sessions.Login) -> AuthPayload:
        return cls(
            access_token=login.access_token,
            refresh_token=login.refresh_token,
            expires_at=login.expires_at,
            user=User.of(login.user),
        )


@strawberry.type(description="A login that has not ended.")
class Session:
    id: ID = strawberry.field(description="Its id.")
    client: str = strawberry.field(description="What the client called itself: its User-Agent.")
    created_at: datetime = strawberry.field(description="When it was opened.")
    last_used_at: datetime = strawberry.field(description="When its tokens were last renewed.")
    expires_at: datetime = strawberry.field(description="When it ends, unless it is renewed.")
    current: bool = strawberry.field(description="Whether it is the one that asks.")

    @classmethod
    def of(cls, session: credentials.Session, current_id: str) -> Session:
        return cls(
            id=ID(str(session.id)),
            client=session.client,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            current=str(session.id) == current_id,
        )


@strawberry.type(description="What a shop's backend shows instead of logging in.")
class ApiKey:
    id: ID = strawberry.field(description="Its id.")
    user_id: ID = strawberry.field(description="The backend that it speaks for: a SERVICE user.")
    name: str = strawberry.field(description="What it is called.")
    scopes: list[Scope] = strawberry.field(description="All that it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    last_used_at: datetime | None = strawberry.field(description="To the minute.")
    revoked_at: datetime | None = strawberry.field(description="Since when it counts no more.")

    @classmethod
    def of(cls, key: credentials.ApiKey) -> ApiKey:
        return cls(
            id=ID(str(key.id)),
            user_id=ID(key.user_id),
            name=key.name,
            scopes=key.scopes,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


@strawberry.type(description="An API key that was just made.")
class CreateApiKeyPayload:
    key: str = strawberry.field(
        description="The key itself, shown this once: send it as `Authorization: Bearer …`."
    )
    api_key: ApiKey = strawberry.field(description="What is kept of it.")


@strawberry.input(description="Who registers.")
class RegisterInput:
    name: str = strawberry.field(description="1 to 100 characters.")
    email: str = strawberry.field(description="Unique; upper and lower case are the same.")
    password: str = strawberry.field(
        description="8 to 256 characters, and none of those that are guessed first."
    )
    preferences: PreferencesInput | None = strawberry.field(
        default=None, description="What differs from the defaults."
    )
    locale: str | None = strawberry.field(default=None, description="A BCP 47 tag; default en.")
    timezone: str | None = strawberry.field(
        default=None, description="An IANA time zone; default SHOP_TIMEZONE."
    )

    def registration(self) -> Registration:
        return Registration(
            name=self.name,
            email=self.email,
            password=self.password,
            locale=self.locale,
            timezone=self.timezone,
            preferences=self.preferences.wishes() if self.preferences else Wishes(),
        )


@strawberry.input(description="Who logs in.")
class LoginInput:
    email: str = strawberry.field(description="The address.")
    password: str = strawberry.field(description="The password.")


@strawberry.input(description="A password for another.")
class ChangePasswordInput:
    current_password: str = strawberry.field(description="The one that counts now.")
    new_password: str = strawberry.field(description="As for registering.")


@strawberry.input(description="A new password instead of a forgotten one.")
class ResetPasswordInput:
    token: str = strawberry.field(description="As `user.password_reset_requested` carried it.")
    new_password: str = strawberry.field(description="As for registering.")


@strawberry.input(description="What an API key shall be.")
class CreateApiKeyInput:
    user_id: ID = strawberry.field(description="The backend that it speaks for: a SERVICE user.")
    name: str = strawberry.field(description="What it is for, 1 to 100 characters.")
    scopes: list[Scope] = strawberry.field(description="All that it may do, at least one.")


@strawberry.type
class AccessQuery:
    @strawberry.field(description="The viewer's open sessions, the last used first.")
    async def sessions(self, info: Info) -> list[Session]:
        viewer = await info.context.viewer()
        found = await info.context.services.sessions.of_user(viewer.user_id)
        return [Session.of(session, viewer.session_id) for session in found]

    @strawberry.field(
        description="All API keys, the oldest first. For ADMIN.", extensions=only(Role.ADMIN)
    )
    async def api_keys(self, info: Info) -> list[ApiKey]:
        return [ApiKey.of(key) for key in await info.context.services.api_keys.all()]


@strawberry.type
class AccessMutation:
    @strawberry.mutation(description="Become a customer, and be logged in.")
    async def register(
        self,
        info: Info,
        input: Annotated[RegisterInput, strawberry.argument(description="Who registers.")],
    ) -> AuthPayload:
        users = info.context.services.users
        return AuthPayload.of(await users.register(input.registration(), info.context.caller))

    @strawberry.mutation(description="Open a session.")
    async def login(
        self,
        info: Info,
        input: Annotated[LoginInput, strawberry.argument(description="Who logs in.")],
    ) -> AuthPayload:
        access = info.context.services.access
        return AuthPayload.of(await access.log_in(input.email, input.password, info.context.caller))

    @strawberry.mutation(
        description="Exchange a refresh token for new tokens. Each refresh token works once; "
        "using one again ends the session."
    )
    async def refresh_session(
        self,
        info: Info,
        refresh_token: Annotated[str, strawberry.argument(description="The newest one.")],
    ) -> AuthPayload:
        return AuthPayload.of(await info.context.services.sessions.refresh(refresh_token))

    @strawberry.mutation(
        description="End the session that asks, or all of the viewer's: their tokens are refused "
        "from now on, and their websockets closed."
    )
    async def logout(
        self,
        info: Info,
        everywhere: Annotated[bool, strawberry.argument(description="True: all sessions.")] = False,
    ) -> bool:
        viewer = await info.context.viewer()
        services = info.context.services
        if everywhere:
            await services.access.log_out_everywhere(viewer.user_id)
        else:
            await services.sessions.end(viewer.user_id, viewer.session_id)
        return True

    @strawberry.mutation(description="End one of the viewer's sessions, as logout does.")
    async def revoke_session(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="The session's id.")]
    ) -> bool:
        viewer = await info.context.viewer()
        await info.context.services.sessions.end(viewer.user_id, id)
        return True

    @strawberry.mutation(
        description="Change the viewer's password. All sessions end; the answer holds a new one."
    )
    async def change_password(
        self,
        info: Info,
        input: Annotated[ChangePasswordInput, strawberry.argument(description="Both passwords.")],
    ) -> AuthPayload:
        viewer = await info.context.viewer()
        access = info.context.services.access
        return AuthPayload.of(
            await access.change_password(
                viewer.user_id, input.current_password, input.new_password, info.context.caller
            )
        )

    @strawberry.mutation(
        description="Let the owner of an email choose a new password: the event "
        "`user.password_reset_requested` carries a token for a mail. True, whether there is one."
    )
    async def request_password_reset(
        self,
        info: Info,
        email: Annotated[str, strawberry.argument(description="The address.")],
    ) -> bool:
        await info.context.services.access.request_reset(email, info.context.caller)
        return True

    @strawberry.mutation(
        description="Set a new password with a token that was asked for, once. All sessions end."
    )
    async def reset_password(
        self,
        info: Info,
        input: Annotated[
            ResetPasswordInput, strawberry.argument(description="Token and password.")
        ],
    ) -> bool:
        await info.context.services.access.reset_password(
            input.token, input.new_password, info.context.caller
        )
        return True

    @strawberry.mutation(
        description="Let nobody log in as a user, and end all of their sessions; or let them in "
        "again. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def disable_user(
        self,
        info: Info,
        id: Annotated[ID, strawberry.argument(description="The user's id.")],
        disabled: Annotated[bool, strawberry.argument(description="False: let them in.")] = True,
    ) -> User:
        viewer = await info.context.viewer()
        if disabled and id == viewer.user_id:
            raise BadInput("This is your own account: let another admin do it.", "id")
        return User.of(await info.context.services.access.disable(id, disabled))

    @strawberry.mutation(
        description="Make an API key for a shop's backend. For ADMIN.", extensions=only(Role.ADMIN)
    )
    async def create_api_key(
        self,
        info: Info,
        input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key.")],
    ) -> CreateApiKeyPayload:
        key, text = await info.context.services.api_keys.create(
            input.user_id, input.name, input.scopes
        )
        return CreateApiKeyPayload(key=text, api_key=ApiKey.of(key))

    @strawberry.mutation(
        description="End an API key; it is refused from now on. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def revoke_api_key(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="The key's id.")]
    ) -> ApiKey:
        return ApiKey.of(await info.context.services.api_keys.revoke(id))
