"""What an operator does about accounts: make users, and API keys for the shop's backends."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Awaitable, Callable

from services.host import Runtime
from services.shared.errors import BadInput, CannotStart
from services.shared.vocabulary import Role, Scope
from services.users.addresses import email_key
from services.users.models import User
from services.users.service import Registration

Command = Callable[[Runtime], Awaitable[str]]
Run = Callable[[Command], int]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], run: Run) -> None:
    """Add `create-user`, `disable-user` and `create-api-key`; `run` opens the services and prints
    the answer."""
    create = commands.add_parser("create-user", help="make a user of any role")
    create.add_argument("--name", required=True)
    create.add_argument("--email", required=True)
    create.add_argument("--role", choices=[role.value for role in Role], default=Role.USER.value)
    create.set_defaults(run=lambda chosen: run(_user_maker(chosen, _password())))
    disable = commands.add_parser("disable-user", help="let nobody in as a user any more")
    disable.add_argument("--email", required=True)
    disable.set_defaults(run=lambda chosen: run(_disabler(chosen.email)))
    key = commands.add_parser("create-api-key", help="make an API key for a user of role service")
    key.add_argument("--email", required=True, help="of the backend that it speaks for")
    key.add_argument("--name", required=True, help="what it is for")
    key.add_argument(
        "--scope",
        required=True,
        action="append",
        choices=[scope.value for scope in Scope],
        help="what it may do; may be given several times",
    )
    key.set_defaults(run=lambda chosen: run(_key_maker(chosen)))


def _user_maker(chosen: argparse.Namespace, password: str) -> Command:
    async def make(runtime: Runtime) -> str:
        registration = Registration(chosen.name, chosen.email, password)
        user = await runtime.users.create(registration, Role(chosen.role))
        return f"Made {user.role.value} {user.email} with id {user.id}."

    return make


def _disabler(email: str) -> Command:
    async def disable(runtime: Runtime) -> str:
        user = await runtime.access.disable(await _id_of(email), True)
        return f"Disabled {user.role.value} {user.email}: every session has ended."

    return disable


def _key_maker(chosen: argparse.Namespace) -> Command:
    async def make(runtime: Runtime) -> str:
        user_id = await _id_of(chosen.email)
        scopes = [Scope(scope) for scope in chosen.scope]
        _, text = await runtime.api_keys.create(user_id, chosen.name, scopes)
        return f"{text}\nThis key is shown once: keep it where secrets are kept."

    return make


async def _id_of(email: str) -> str:
    user = await User.by_email_key(email_key(email))
    if user is None:
        raise BadInput(f"There is no user {email}: make one with create-user.", "--email")
    return str(user.id)


def _password() -> str:
    """Asked for before anything is opened: a Ctrl-C at the prompt leaves nothing to clean up. Never
    an argument, which other users of the machine could read."""
    if sys.stdin and sys.stdin.isatty():
        return getpass.getpass("Password: ")
    if password := sys.stdin.readline().rstrip("\n") if sys.stdin else "":
        return password
    raise CannotStart("There is nobody to ask for a password: give it as a line of standard input.")
