"""The command line: serve everything, or one service; and the few things an operator types."""

from __future__ import annotations

import signal

if __name__ == "__main__":  # until somebody can answer it, a Ctrl-C ends us without a word
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from services import accounts, checks, dead_letters, demo, host
from services.asyncapi import asyncapi
from services.host import GATEWAY, SERVE
from services.shared import loop
from services.shared.errors import CannotStart, DomainError
from services.shared.log import get_logger, set_up_logging
from services.shared.mongod import running_url
from services.shared.settings import Settings, describe, load_settings
from services.shared.store import is_away
from services.shared.tasks import end_if_cancelled
from services.users.tokens import signing_keys

log = get_logger()

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it may be set to
EXPORTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "schema": (
        "schema.graphql",
        lambda: _gateway("schema").make_schema(Settings()).as_str() + "\n",
    ),
    "asyncapi": ("asyncapi.yaml", asyncapi),
    "settings": (".env.example", describe),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. What can't start says why in one sentence on stderr."""
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code: int = chosen.run(chosen)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        print(f"tidings: {sentence}", file=sys.stderr)
        code = 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(SERVE, help="everything in one process").set_defaults(
        run=lambda _: loop.run(_serve(host.WORKERS, gateway=True))
    )
    commands.add_parser(GATEWAY, help="the GraphQL gateway alone").set_defaults(
        run=lambda _: loop.run(_serve((), gateway=True, alone=GATEWAY))
    )
    for worker in host.WORKERS:
        commands.add_parser(worker, help=f"the {worker} service alone").set_defaults(
            run=lambda _, worker=worker: loop.run(_serve((worker,), gateway=False, alone=worker))
        )
    accounts.add_commands(commands, lambda command: loop.run(_on_accounts(command)))
    letters = commands.add_parser("dead-letters", help="events that nobody could handle")
    dead_letters.add_commands(
        letters, lambda command, chosen: loop.run(_on_dead_letters(command, chosen))
    )
    commands.add_parser("backlog", help="what waits in the outbox, and for how long").set_defaults(
        run=lambda _: loop.run(_show_backlog())
    )
    health = commands.add_parser("health", help="exit code 0 when a service can do its work")
    health.add_argument("service", choices=[GATEWAY, *host.WORKERS])
    health.set_defaults(run=lambda chosen: _health(chosen.service))
    for name, (path, export) in EXPORTS.items():
        command = commands.add_parser(name, help=f"write {path}")
        command.add_argument("--check", action="store_true", help="only compare")
        command.set_defaults(
            run=lambda chosen, path=path, export=export: _export(Path(path), export(), chosen.check)
        )
    return parser


async def _serve(workers: Sequence[str], *, gateway: bool, alone: str | None = None) -> int:
    settings = load_settings()
    set_up_logging(settings.log_level)
    if alone:
        checks.check_single(settings, alone)
    app = _gateway("app") if gateway else None
    listening = [app.listen(settings)] if app else []
    stop = asyncio.Event()
    _on_signal(_canceller(stop))
    try:
        async with host.open_runtime(settings) as runtime:
            if settings.in_production:
                await demo.check_gone()
            if settings.demo_data and host.USERS in workers:
                await demo.fill(runtime)
            end_if_cancelled()
            _on_signal(stop.set)
            async with asyncio.TaskGroup() as group:
                group.create_task(host.run(runtime, workers, stop))
                tasks = []
                if settings.demo_data and host.SCHEDULER in workers:
                    tasks.append(group.create_task(demo.run_schedules_once(runtime)))
                if app:
                    if not settings.in_production:
                        log.warning("development_profile", open=checks.what_is_open(settings))
                    people = await demo.people() if settings.demo_data else ()
                    _tell_where(settings, listening[0].getsockname()[1], people)
                    group.create_task(app.serve(runtime, listening, stop))
                await asyncio.sleep(0)  # until they have begun: a gateway has made its schema
                spared = loop.collect_rarely()
                log.debug("started", spared_of_collections=spared)
                await stop.wait()
                log.info("stopping")
                for task in tasks:
                    task.cancel()
    except asyncio.CancelledError:
        log.info("stopped_while_starting")
    return 0


def _on_signal(action: Callable[[], object]) -> None:
    for signal_ in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_, action)


def _canceller(stop: asyncio.Event) -> Callable[[], None]:
    """Cancels the running task, once: a second Ctrl-C must not disturb the cleaning up."""
    starting = asyncio.current_task()

    def cancel() -> None:
        if starting and not stop.is_set():
            stop.set()
            starting.cancel()

    return cancel


def _tell_where(settings: Settings, port: int, people: Sequence[demo.Account]) -> None:
    address = _address(settings, port)
    lines = [f"Tidings is up: open {address}/graphql in a browser."]
    if people:
        lines = [
            f"Tidings is up: open {address}/ for the demo's shop, in two windows side by side.",
            f"GraphiQL is at {address}/graphql. The demo's people:",
        ]
    for account in people:
        role = account.role.name.lower()
        lines.append(f"  {account.email:<20} {account.password:<20} ({account.name}, {role})")
    _say(*lines, "Stop with Ctrl-C.")


def _address(settings: Settings, port: int) -> str:
    """Where this machine reaches its gateway."""
    name = _ANY_ADDRESS.get(settings.gateway_host, settings.gateway_host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _say(*lines: str) -> None:
    """Print at once, to whom it may concern: a closed pipe or a full disk must not end a server."""
    try:
        print(*lines, sep="\n", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _on_accounts(command: accounts.Command) -> int:
    async with _beside_a_running_server() as runtime:
        answer = await command(runtime)
    _say(answer)
    return 0


async def _on_dead_letters(command: dead_letters.Command, chosen: argparse.Namespace) -> int:
    async with _beside_a_running_server() as runtime:
        lines = await command(runtime.bus, chosen)
    _say(*lines)
    return 0


async def _show_backlog() -> int:
    async with _beside_a_running_server() as runtime:
        backlog = await runtime.outbox.backlog()
    oldest = f", the oldest for {backlog.age.total_seconds():.0f} s" if backlog.rows else ""
    _say(f"{backlog.rows} event{'' if backlog.rows == 1 else 's'} in the outbox{oldest}.")
    return 0


def _health(service: str) -> int:
    settings = load_settings()
    if service != GATEWAY:
        return loop.run(_ping(settings))
    with suppress(OSError):
        url = f"{_address(settings, settings.gateway_port)}/readyz"
        return 0 if urlopen(url, timeout=3).status == 200 else 1  # noqa: S310 - http
    return 1


async def _ping(settings: Settings) -> int:
    """A worker whose loop ends takes its process down, so what is left to ask are its servers."""
    await checks.reach(settings)
    return 0


def _beside_a_running_server() -> Any:
    """A runtime on the database that a running `serve` has opened, or on one of its own."""
    settings = load_settings()
    if not settings.mongodb_url and (url := running_url(settings.data_dir)):
        secret = signing_keys(settings).secret
        settings = settings.model_copy(update={"mongodb_url": url, "jwt_secret": secret})
    return host.open_runtime(settings)


def _export(path: Path, text: str, check: bool) -> int:
    if not check:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CannotStart(f"{path} can't be written: {error.strerror}.") from error
    elif not path.exists() or path.read_bytes() != text.encode():
        command = next(name for name, (target, _) in EXPORTS.items() if target == str(path))
        _say(f"{path} is not what the code says: run python -m services {command}")
        return 1
    return 0


def _gateway(module: str) -> Any:
    """A module of the gateway, by name: the command line alone stands above it."""
    return import_module(f"gateway.{module}")


def _sentence(error: Exception) -> str | None:
    """What an operator should read of it; None for what nobody foresaw."""
    errors = list(_single(error))
    for single in errors:
        if isinstance(single, CannotStart | DomainError):
            return str(single)
    if any(map(is_away, errors)):
        return "The database does not answer: see that it is up, and try again."
    return None


def _single(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _single(inner)
    else:
        yield error


if __name__ == "__main__":
    exit_code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is cleaned up
    sys.exit(exit_code)
