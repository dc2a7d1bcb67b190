"""Log lines that people read and machines filter: `action=schedules_fired schedule=… `."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, Final

import structlog
from structlog.typing import EventDict

from services.shared.errors import CannotStart

_FRAMES, _CAUSES = 8, 4  # innermost
# What a stranger wrote ends no line, and moves nobody's cursor.
_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def set_up_logging(level: str) -> None:
    """Send all logs to stderr, from `level` upwards. Raises CannotStart for an unknown level."""
    level = level.upper()
    if level not in LEVELS:
        raise CannotStart(f"Setting LOG_LEVEL is wrong: {level} is none of {', '.join(LEVELS)}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # all of its faults reach us, who tell
    for noisy in ("aio_pika", "pymongo", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.EventRenamer("action"),
            _place_fault,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "action"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=lambda *_: _Printer(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _place_fault(_: object, __: str, line: EventDict) -> EventDict:
    if isinstance(error := line.pop("exc_info", None), BaseException):
        line["fault"] = _place(error)
    return line


def _place(fault: BaseException) -> str:
    """Types and places of a fault, and not its message: that may quote what a customer wrote."""
    causes: list[str] = []
    error: BaseException | None = fault
    while error is not None and len(causes) < _CAUSES:
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
        causes.append(f"{type(error).__name__} at {' < '.join(places)}")
        error = error.__cause__ or error.__context__
    return "; caused by ".join(causes)


class _Formatter(logging.Formatter):
    """What libraries log, as ours is: one line, and no message of a fault."""

    def formatException(self, ei: Any) -> str:
        return _place(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "asyncio" and record.exc_info:  # whose message quotes the fault's
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        return super().format(record).translate(_CONTROLS)


class _Printer(structlog.PrintLogger):
    """A line that can't be written, to a closed pipe or a full disk, ends nothing else."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message.translate(_CONTROLS))

    debug = info = warning = error = msg


def get_logger() -> structlog.stdlib.BoundLogger:
    """A logger whose first argument is the line's action: `log.info("schedules_fired", id=…)`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
