"""To which class a notification belongs: the shop's policy, never the caller's. Pure."""

from __future__ import annotations

from typing import Final

from services.shared.vocabulary import MARKETING_TYPES, MessageClass, NotificationType

CRITICAL_STATUSES: Final = frozenset({"payment_failed"})


def class_of(type_: NotificationType, status: str | None = None) -> MessageClass:
    """`status`: of the order that the notification tells of, if it tells of one."""
    if status is not None and status.lower() in CRITICAL_STATUSES:
        return MessageClass.CRITICAL
    return MessageClass.MARKETING if type_ in MARKETING_TYPES else MessageClass.TRANSACTIONAL
