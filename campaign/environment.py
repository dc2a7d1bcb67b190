"""The environment that the services run in, and where others find them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from campaign.process import CLOCK_OFFSET, FAILPOINT_FILE, TASKS_FILE
from campaign.proxy import Proxy
from campaign.service_process import ServiceProcess
from services.shared.settings import Settings

DATABASE: Final = "campaign"
SECRET: Final = "a secret for campaigns, and only for campaigns"
_ROOT: Final = Path(__file__).parents[1]
_RETRY_WAITS: Final = (0.2, 0.5, 1.0, 2.0)
_FAN_OUT_SIZE: Final = 5  # or no promotion of ours would be told in parts
_CAPS: Final = {  # about half of what is for who has email and push
    "CAP_WEB_PUSH": "2",
    "CAP_WEB_PUSH_SECONDS": "20",
    "CAP_EMAIL": "3",
    "CAP_EMAIL_SECONDS": "40",
    "CAP_TOTAL": "4",
    "CAP_TOTAL_SECONDS": "30",
    "OVER_CAP": "digest",  # what is deferred would grow for as long as a campaign lasts
}


@dataclass(frozen=True)
class Endpoints:
    """Where clients, shops and the checker find the house."""

    gateways: Sequence[str]
    """GraphQL http URLs, each through a proxy of its own: the clients' links."""
    rabbitmq_url: str
    """For shop backends that publish straight to the exchange; through a proxy."""
    direct_rabbitmq_url: str
    mongodb_url: str
    """For the checker: no proxy."""
    database: str
    jwt_secret: str
    settings: Settings


def shared_settings(mongodb_url: str, rabbitmq_url: str) -> dict[str, str]:
    """Settings that all processes share, as environment variables."""
    return {
        "MONGODB_URL": mongodb_url,
        "MONGODB_DATABASE": DATABASE,
        "RABBITMQ_URL": rabbitmq_url,
        "JWT_SECRET": SECRET,
        "BCRYPT_COST": "4",
        "LOG_LEVEL": "INFO",
        "ACCESS_TOKEN_SECONDS": "86400",
        "STARTUP_WAIT_SECONDS": "60",
        "FAN_OUT_SIZE": str(_FAN_OUT_SIZE),
        "RETRY_WAITS": json.dumps(_RETRY_WAITS),
        "BROADCAST_LEASE_SECONDS": "4",  # less than a fault lasts: chunks are taken over
        **_CAPS,
        "MAX_SOCKETS_PER_ADDRESS": "1000",  # all clients have one
    }


def environment(
    process: ServiceProcess, shared: Mapping[str, str], clock_offset: float
) -> dict[str, str]:
    """One process's: `shared`, but behind its own links; and what a campaign harms it with."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_ROOT),
        **shared,
        **_faketime(process.faketime),
        "MONGODB_URL": through(shared["MONGODB_URL"], process.links["mongodb"]),
        "RABBITMQ_URL": through(shared["RABBITMQ_URL"], process.links["rabbitmq"]),
        "GATEWAY_PORT": str(process.port),
        CLOCK_OFFSET: str(clock_offset),
        FAILPOINT_FILE: str(process.failpoint),
        TASKS_FILE: str(process.tasks),
    }


def through(url: str, proxy: Proxy) -> str:
    """The URL of the same server, behind the proxy."""
    return re.sub(r":\d+/", f":{proxy.port}/", url)


def _faketime(file: Path) -> dict[str, str]:
    """Variables that let `file` move a process's wall clock; its timers keep real time."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def can_move_clocks() -> bool:
    return bool(_faketime(Path()))
