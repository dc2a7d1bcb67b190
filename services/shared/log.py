"""Log lines that people read and machines filter: `action=schedule_fired schedule=… `."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

import structlog

from services.shared.errors import CannotStart

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def set_up_logging(level: str) -> None:
    """Send all logs to stderr, from `level` upwards. Raises CannotStart for an unknown level."""
    level = level.upper()
    if level not in LEVELS:
        raise CannotStart(f"Setting LOG_LEVEL is wrong: {level} is none of {', '.join(LEVELS)}.")
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # all of its faults reach us, who tell
    for noisy in ("aio_pika", "pymongo", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.EventRenamer("action"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "action"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=lambda *_: _Printer(sys.stderr),
        cache_logger_on_first_use=False,
    )


class _Printer(structlog.PrintLogger):
    """A line that can't be written, to a closed pipe or a full disk, ends nothing else."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    debug = info = warning = error = msg


def get_logger() -> structlog.stdlib.BoundLogger:
    """A logger whose first argument is the line's action: `log.info("schedule_fired", id=…)`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
