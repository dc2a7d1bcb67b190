"""What users say they want: preferences that change, and consent that is given and withdrawn.

Both are one change: whoever switches marketing on outside the app gives consent to it, and whoever
switches it off withdraws it. Each such word is recorded in the transaction that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from services.shared.clock import Clock, zone_names
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.events import Event, PreferencesChanged
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store
from services.shared.vocabulary import Channel, NotificationType
from services.users.consent import (
    ONE_CLICK,
    PREFERENCES,
    Consent,
    Statement,
    check_marketing,
    checked,
    recorded_anew,
    said_anew,
    with_said,
)
from services.users.models import ConsentRecord, User, object_id
from services.users.preferences import Preferences, Wishes, consents_in, is_off, merge, switches
from services.users.quiet_hours import merge_quiet

_STORED: Final = {"choices", "quiet_hours", "timezone", "preferences_version"}
# What becomes of a user, not yet in the database, and what was said by that; None: all stays.
Change = Callable[[User], Sequence[Statement] | None]


class Choosing:
    def __init__(self, store: Store, outbox: Outbox, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._most_windows = settings.max_quiet_windows
        self._most_records = settings.max_consent_records

    async def update_preferences(
        self, user_id: str, wishes: Wishes, version: int | None
    ) -> Preferences:
        """Merge a user's own wishes. `version`, when given, must be the current one (Conflict)."""

        def change(user: User) -> Sequence[Statement]:
            if version is not None and version != user.preferences_version:
                raise Conflict(
                    f"The preferences have version {user.preferences_version}, not {version}: "
                    "read them again and repeat the change."
                )
            return self.fulfil(wishes, user, "input", PREFERENCES)

        return (await self._change(user_id, change, recorded_by=user_id)).preferences

    async def record_consent(
        self,
        user_id: str,
        channel: Channel,
        types: Sequence[NotificationType],
        consent: Consent,
        recorded_by: str,
    ) -> Preferences:
        """Record what a user said elsewhere, and switch the channel of these types accordingly.

        `recorded_by`: the id of the caller. The same again changes nothing. Raises BadInput,
        NotFound, and Conflict where the user has said otherwise since then.
        """
        if not types:
            raise BadInput("Name the types that it is about.", "input.types")
        places = {f"input.types[{index}]": type_ for index, type_ in enumerate(types)}
        check_marketing(channel, places, "input.channel")
        consent = checked(consent, self._clock.now())
        said = [Statement(type_, channel, consent) for type_ in types]

        def change(user: User) -> Sequence[Statement] | None:
            _refuse_what_was_switched_off(user, said)
            return _take_in(user, recorded_anew(user.consents, said))

        return (await self._change(user_id, change, recorded_by)).preferences

    async def unsubscribe(
        self, user_id: str, channel: Channel, types: Sequence[NotificationType]
    ) -> User:
        """Withdraw consent for whoever clicked a link; again changes nothing. Raises NotFound.

        It waits for no broker: nobody is to be written to for that.
        """
        consent = Consent(given=False, at=self._clock.now(), source=ONE_CLICK)
        said = [Statement(type_, channel, consent) for type_ in types]

        def change(user: User) -> Sequence[Statement] | None:
            return _take_in(user, said_anew(user.consents, said))

        return await self._change(user_id, change, recorded_by=None, whatever_waits=True)

    def fulfil(self, wishes: Wishes, user: User, place: str, source: str) -> Sequence[Statement]:
        """Change the user as wished, not yet in the database; what was said by that, which is to be
        recorded. Raises BadInput.

        `place`: the path of the wishes in the caller's input; `source`: how they were given.
        """
        said = said_anew(user.consents, consents_in(wishes.types, self._clock.now(), source))
        user.choices = merge(user.choices, wishes.types, f"{place}.types")
        user.consents = with_said(user.consents, said)
        user.quiet_hours = merge_quiet(
            user.quiet_hours, wishes.quiet_hours, f"{place}.quietHours", self._most_windows
        )
        timezone = checked_timezone(wishes.timezone, f"{place}.timezone")
        user.timezone = timezone or user.timezone
        return said

    async def record(
        self,
        user_id: str,
        said: Sequence[Statement],
        recorded_by: str | None,
        transaction: Transaction,
    ) -> None:
        """Write down what was said; the oldest beyond MAX_CONSENT_RECORDS is forgotten."""
        if not said:
            return
        now = self._clock.now()
        records = [
            ConsentRecord(
                user_id=user_id,
                type=one.type,
                channel=one.channel,
                **one.consent.model_dump(),
                recorded_at=now,
                recorded_by=recorded_by,
            )
            for one in said
        ]
        await ConsentRecord.insert_many(records, session=transaction)
        surplus = await ConsentRecord.surplus(user_id, self._most_records, transaction)
        if surplus:
            await ConsentRecord.get_pymongo_collection().delete_many(
                {"_id": {"$in": surplus}}, session=transaction
            )

    async def _change(
        self,
        user_id: str,
        change: Change,
        recorded_by: str | None,
        *,
        whatever_waits: bool = False,
    ) -> User:
        """The user as changed, and that it is told of. Raises NotFound."""

        async def write(transaction: Transaction) -> User:
            key = object_id(user_id)
            user = await User.get(key, session=transaction) if key else None
            if user is None:
                raise NotFound("There is no such user, or not any more.")
            said = change(user)
            if said is None:
                return user
            user.preferences_version += 1
            await User.get_pymongo_collection().update_one(
                {"_id": user.id}, {"$set": _changes(user, said)}, session=transaction
            )
            await self.record(user_id, said, recorded_by, transaction)
            changed = PreferencesChanged(user_id=user_id, version=user.preferences_version)
            told = [Event.of(changed, time=self._clock.now())]
            await self._outbox.put(told, transaction, whatever_waits=whatever_waits)
            return user

        user = await self._store.transact(write)
        self._outbox.wake()
        return user


def checked_timezone(timezone: str | None, field: str) -> str | None:
    """Raises BadInput for none of IANA's."""
    if timezone is not None and timezone not in zone_names():
        raise BadInput("A timezone is an IANA name such as Europe/Vienna.", field)
    return timezone


def _take_in(user: User, said: Sequence[Statement]) -> Sequence[Statement] | None:
    """Let the user's channels and consents be as was said; None, if they are."""
    if not said:
        return None
    user.choices = merge(user.choices, switches(said), "input.types")
    user.consents = with_said(user.consents, said)
    return said


def _refuse_what_was_switched_off(user: User, said: Sequence[Statement]) -> None:
    """Where it is not recorded when, as before there were records, it may have been the last
    word. Raises Conflict."""
    for one in said:
        recorded = one.channel in user.consents.get(one.type, {})
        if one.consent.given and not recorded and is_off(user.choices, one.type, one.channel):
            raise Conflict(
                f"The user has switched {one.type.name} on {one.channel.name} off, it is not known "
                "when: only they can switch it on."
            )


def _changes(user: User, said: Sequence[Statement]) -> dict[str, Any]:
    """What is set; of the consents only what was said, so that others' are left alone."""
    consents = {f"consents.{one.type}.{one.channel}": one.consent.model_dump() for one in said}
    return {**user.model_dump(mode="json", include=_STORED), **consents}
