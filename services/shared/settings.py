"""Every setting, its default and its meaning. Read once, from the environment or a `.env` file.

`.env.example` is written from this page (`python -m services settings`), and a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.shared.clock import zone_names
from services.shared.errors import CannotStart
from services.shared.vocabulary import Channel, OverCap

Seconds = Annotated[float, Field(gt=0, le=100 * 366 * 86_400)]  # what a calendar can bear
Count = Annotated[int, Field(gt=0)]
DeliveryChannel = Literal[Channel.EMAIL, Channel.WEB_PUSH, Channel.WEBHOOK]
UpToHundred = Annotated[int, Field(gt=0, le=100)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


def _iana(name: str) -> str:
    if name not in zone_names():
        raise ValueError("Name an IANA time zone, spelled like Europe/Berlin")
    return name


Zone = Annotated[str, AfterValidator(_iana)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    # Where things are
    mongodb_url: str = Field("", description="MongoDB replica set; empty: a private mongod.")
    mongodb_database: str = Field("tidings", description="Name of the database.")
    rabbitmq_url: str = Field(
        "",
        description="RabbitMQ, amqp(s)://; empty: the embedded bus, for one process a database.",
    )
    data_dir: Folder = Field(
        Path(".tidings"), description="Folder of the private mongod's data and of the made secret."
    )
    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: int = Field(8000, ge=0, le=65535, description="Its port; 0 picks a free one.")
    public_url: str = Field(
        "",
        description="Where strangers reach the gateway, for the links in mails: "
        "https://tidings.shop.example, perhaps with a path; empty: GATEWAY_HOST and GATEWAY_PORT.",
    )
    demo_data: bool = Field(
        False, description="Fill an empty database with a demo shop, and mock its traffic."
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    # Who may come in
    profile: Literal["development", "production"] = Field(
        "development",
        description="production: closed, and refuses to start with what is for development only; "
        "see docs/security.md.",
    )
    admin_page: bool | None = Field(
        None,
        description="Serve the operator's page at /admin, where admins log in; empty: yes, but not "
        "in production.",
    )
    jwt_secret: str = Field(
        "",
        description="Signs access tokens, 32 bytes or more; empty: made and kept in DATA_DIR, "
        "which is refused when MONGODB_URL is set.",
    )
    jwt_accepted_secrets: tuple[str, ...] = Field(
        (),
        description="Other secrets whose tokens count, as a JSON list: the next one before it "
        "signs, and the last one until its tokens have ended.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose pages may use the API from a browser, as a JSON list: "
        '["https://shop.example"]. The gateway\'s own pages always may.',
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of reverse proxies, as a JSON list: whom they name in "
        "X-Forwarded-For is the client.",
    )
    access_token_seconds: Seconds = Field(900, description="Life of an access token, seconds.")
    kept_tokens: Count = Field(
        10_000,
        description="Access tokens of which a process remembers that their signatures are right, "
        "and sessions that were open when it looked: customers who ask alone have theirs looked "
        "up while their page is read.",
    )
    refresh_token_seconds: Seconds = Field(
        30 * 86400, description="Life of a refresh token, seconds from its last use."
    )
    password_reset_seconds: Seconds = Field(
        3600, description="Life of a token that resets a password, seconds."
    )
    unsubscribe_link_seconds: Seconds = Field(
        2 * 365 * 86400, description="Life of a link that unsubscribes, seconds: mails are kept."
    )
    unsubscribe_accepted_secrets: tuple[str, ...] = Field(
        (),
        description="Former secrets of JWT_SECRET whose links still unsubscribe, as a JSON list; "
        "nothing else that they signed counts.",
    )
    max_sessions_per_user: Count = Field(
        50, description="Logins of one user; with more the one ends that was unused for longest."
    )
    max_api_keys_per_user: Count = Field(
        50, description="API keys of one backend, revoked ones left out."
    )
    session_check_seconds: Seconds = Field(
        30,
        description="How often a gateway looks whether the sessions of its websockets are open, in "
        "case it was not told, seconds.",
    )
    bcrypt_cost: int = Field(12, ge=4, le=16, description="Work of a password hash, log2 rounds.")
    bcrypt_at_once: Count = Field(2, description="Password hashes computed at the same time.")
    bcrypt_waiting: Count = Field(
        50, description="Password hashes that wait for that; more answer RATE_LIMITED."
    )
    bcrypt_per_address: Count = Field(
        10, description="Password hashes of one network address, those that wait included."
    )

    # How often at most: so many at once, then evenly as many in each ATTEMPTS_SECONDS
    attempts_seconds: Seconds = Field(900, description="What the next seven count in, seconds.")
    login_failures: Count = Field(
        10, description="Wrong passwords for one account from one network address."
    )
    login_failures_per_account: Count = Field(
        25, description="Wrong passwords for one account from all addresses."
    )
    login_failures_per_address: Count = Field(
        100, description="Wrong passwords for all accounts from one network address."
    )
    registrations_per_address: Count = Field(
        50, description="Attempts to register from one network address."
    )
    resets: Count = Field(
        3, description="Password resets asked for one account from one network address."
    )
    resets_per_account: Count = Field(
        10, description="Password resets asked for one account from all addresses."
    )
    resets_per_address: Count = Field(
        20, description="Password resets asked for from one network address."
    )

    # How much at once
    page_size: Count = Field(20, description="Notifications on a page when `first` is not given.")
    max_page_size: Count = Field(100, description="The most that `first` or `last` may ask for.")
    max_content_bytes: Count = Field(
        65536, description="Size of one notification's content, bytes of JSON."
    )
    max_event_bytes: Count = Field(524288, description="Size of one event, bytes of JSON.")
    max_request_bytes: Count = Field(1048576, description="Size of an HTTP request's body, bytes.")
    max_message_bytes: Count = Field(
        131072,
        description="Size of a message on a websocket, bytes; more than MAX_CONTENT_BYTES.",
    )
    max_connections: Count = Field(
        10_000, description="Connections that a gateway has open; more are answered with 503."
    )
    max_header_bytes: Count = Field(65536, description="Size of a request's headers, bytes.")
    max_json_depth: Count = Field(64, description="Levels of objects and lists in a request.")
    request_seconds: Seconds = Field(
        10, description="Time a client has to send its headers, and again its body, seconds."
    )
    operation_seconds: Seconds = Field(10, description="Time a query or a mutation has, seconds.")
    max_query_length: Count = Field(
        20_000, description="Characters of a GraphQL document that is no persisted one."
    )
    max_subscription_length: Count = Field(
        2000, description="Characters of one that subscribes: it is kept as long as that is open."
    )
    max_query_depth: Count = Field(12, description="Levels of fields in a GraphQL document.")
    max_query_tokens: Count = Field(2000, description="Tokens in a GraphQL document.")
    max_query_aliases: Count = Field(30, description="Aliases in a GraphQL document.")
    max_root_fields: Count = Field(30, description="Fields of Query or Mutation in an operation.")
    max_query_fields: Count = Field(
        250, description="Fields in a GraphQL document: comparing them takes the square of them."
    )
    max_query_cost: Count = Field(
        1000, description="Cost of an operation, as docs/security.md counts it."
    )
    max_errors: Count = Field(10, description="Errors that an answer reports.")
    kept_documents: Count = Field(
        100, description="GraphQL documents of up to 2 KiB that are kept parsed and validated."
    )
    max_sockets_per_user: Count = Field(
        20, description="Websockets of one user that a gateway has open at the same time."
    )
    max_sockets_per_address: Count = Field(
        100,
        description="Websockets from one network address that have not said whose they are, which "
        "a gateway has open at the same time.",
    )
    max_operations_per_socket: Count = Field(
        50, description="Operations that run at the same time on one websocket."
    )
    persisted_documents: Path | None = Field(
        None,
        description="A JSON file of known GraphQL documents by id, as Relay's compiler or Apollo's "
        "manifest generator writes it; clients may send the id alone.",
    )
    only_persisted_documents: bool = Field(
        False, description="Refuse all other documents; needs PERSISTED_DOCUMENTS."
    )
    connection_init_seconds: Seconds = Field(
        5, description="Time a new websocket has to send connection_init, seconds."
    )
    reader_queue_size: Count = Field(
        256,
        description="Notifications, each of up to MAX_CONTENT_BYTES, that wait for one slow "
        "subscriber before it reads again from the database.",
    )
    socket_send_seconds: Seconds = Field(
        5,
        description="A websocket whose client takes nothing for this long is closed with 1013, "
        "seconds.",
    )
    socket_ping_seconds: Seconds = Field(
        20,
        description="How often a websocket is pinged, and how long a ping may go unanswered "
        "before it is closed with 1013, seconds.",
    )
    resume_limit: Count = Field(
        1000,
        description="Missed notifications that a subscription makes up for; with more, its "
        "client is told to read the list again (RESYNC).",
    )
    changes_remembered: Count = Field(
        10_000,
        description="Changes that a subscription remembers as told, and FAN_OUT_SIZE more; with "
        "more within a few WRITE_WINDOW_SECONDS its client is told to read anew (RESYNC).",
    )
    reads_at_once: Count = Field(
        5, description="Questions of subscriptions that a gateway asks the database at once."
    )
    max_cursor_ids: Count = Field(
        256,
        description="Notifications of one user within WRITE_WINDOW_SECONDS before that user's "
        "subscriptions pause, since their cursors name each: a cursor has 24 bytes for one.",
    )

    # What operators see
    pulse_seconds: Seconds = Field(
        5,
        description="How often a process tells what it has done, and that it lives, seconds; one "
        "that has not for three times as long counts as dead.",
    )
    rates_seconds: Seconds = Field(
        86_400, description="How long it is remembered what was done in a minute, seconds."
    )
    dead_letter_shown_bytes: Count = Field(
        16_384, description="How much of a dead letter's body GraphQL shows, bytes."
    )
    dead_letters_gone_through: Count = Field(
        20_000,
        description="With more dead letters than this on RabbitMQ, which hands out all for each "
        "look, GraphQL leaves them to the command line.",
    )

    # How events travel
    batch_size: Count = Field(
        500,
        description="Events a worker takes at once.",
    )
    batches_at_once: UpToHundred = Field(
        6,
        description="Such batches that a worker has in hand while the database stores them; more "
        "are of use where it is far away. With one that waits it has up to 3,500 events in memory, "
        "each of up to RabbitMQ's max_message_size, which must be more than MAX_EVENT_BYTES.",
    )
    retry_waits: tuple[Seconds, ...] = Field(
        (1, 5, 30, 120),
        description="Waits before an event that failed is tried again, seconds, as a JSON list; "
        "after the last it is dead-lettered.",
    )
    retry_jitter: float = Field(
        0.2, ge=0, lt=1, description="Part of such a wait by which it is shortened at random."
    )
    event_memory_seconds: Seconds = Field(
        7 * 86400,
        description="Time for which an event's id is remembered, so that other content under "
        "the same id is refused, seconds; later it is taken for the same event.",
    )
    live_prefetch: Count = Field(
        100,
        description="Messages with live events that a gateway holds before it has looked at them: "
        "of up to 64 KiB each, or of one larger event.",
    )
    live_queue_bytes: Count = Field(
        2**26,
        description="Live events that RabbitMQ keeps for one gateway that is behind, bytes; "
        "LIVE_PREFETCH messages besides. Beyond, readers read the database.",
    )
    fan_out_size: Count = Field(1000, description="Users that one step of a fan-out handles.")
    outbox_batch_size: Count = Field(500, description="Outbox rows a relay hands on at once.")
    outbox_limit: Count = Field(
        100_000,
        description="Outbox rows that may wait while the broker is away; beyond, mutations that "
        "write one answer SERVICE_UNAVAILABLE.",
    )
    outbox_poll_seconds: Seconds = Field(
        0.25, description="How often a relay looks for rows that nobody told it of, seconds."
    )
    outbox_lease_seconds: Seconds = Field(
        3,
        description="Time a relay has for the rows it claimed before another may, seconds: twice "
        "RABBITMQ_TIMEOUT_SECONDS or more, or relays do one another's work.",
    )
    write_window_seconds: Seconds = Field(
        5,
        description="Bound on one write of a notification, its writers' clocks' difference "
        "included; a resumed subscription looks back this far, seconds.",
    )

    # Who is told when
    shop_timezone: Zone = Field(
        "UTC", description="The IANA time zone of users who have not chosen one."
    )
    max_quiet_windows: Count = Field(
        14, description="Windows of a user's quiet hours on one channel."
    )
    max_consent_records: Count = Field(
        20,
        description="Consents given and withdrawn that are remembered of a user for one type on "
        "one channel.",
    )
    trace_seconds: Seconds = Field(
        30 * 86_400, description="How long it is told why something went out or not, seconds."
    )
    promotion_life_seconds: Seconds = Field(
        7 * 86_400, description="Until a promotion without an end of its own expires, seconds."
    )
    recommendation_life_seconds: Seconds = Field(
        14 * 86_400, description="Until a recommendation expires, seconds."
    )
    snooze_seconds: Seconds = Field(
        366 * 86_400, description="How far ahead a notification may be snoozed, seconds."
    )
    revisions_kept: Count = Field(
        5, description="Former states that are kept of a notification that is revised."
    )

    # Channels besides the app
    delivery_channels: tuple[DeliveryChannel, ...] = Field(
        (Channel.EMAIL, Channel.WEB_PUSH, Channel.WEBHOOK),
        description="Channels besides the app for which deliveries are decided and kept, as a JSON "
        "list; leave out those that no sender will ever collect: each costs a row.",
    )
    quiet_release_seconds: float = Field(
        600,
        ge=0,
        description="What waits for quiet hours to end goes out spread over this time, seconds.",
    )
    cap_web_push: UpToHundred = Field(
        2, description="Marketing to one user by push in any CAP_WEB_PUSH_SECONDS, up to 100."
    )
    cap_web_push_seconds: Seconds = Field(86_400, description="What CAP_WEB_PUSH counts in.")
    cap_email: UpToHundred = Field(
        3, description="Marketing to one user by email in any CAP_EMAIL_SECONDS, up to 100."
    )
    cap_email_seconds: Seconds = Field(7 * 86_400, description="What CAP_EMAIL counts in.")
    cap_total: UpToHundred = Field(
        4,
        description="Marketing to one user on all channels but the app in any CAP_TOTAL_SECONDS, "
        "up to 100.",
    )
    cap_total_seconds: Seconds = Field(86_400, description="What CAP_TOTAL counts in.")
    over_cap: OverCap = Field(
        OverCap.DEFER,
        description="What happens to marketing beyond these: drop; defer, until there is room; "
        "digest, the same, and what waits goes out in one.",
    )
    digest_size: UpToHundred = Field(
        50, description="Notifications that one digest holds, up to 100."
    )
    delivery_memory_seconds: Seconds = Field(
        30 * 86_400,
        description="How long a delivery is kept after what last happened to it, seconds.",
    )

    # Recommendations
    recommendation_acts: Count = Field(
        5000, description="Activities that are read to recommend to one user, at most."
    )
    recommendation_neighbours: Count = Field(
        200, description="Other users whose activities count for one user, at most."
    )

    # Texts that an admin overrides
    text_source_bytes: Count = Field(
        8192, description="Size of a title or a body in Liquid, bytes."
    )
    text_output_bytes: Count = Field(
        32768,
        description="What a title or a body may become, and what it may keep in variables, bytes.",
    )
    text_loop_iterations: Count = Field(
        100, description="Runs of a loop's body, those of the loops around it included."
    )
    text_steps: Count = Field(
        2000, description="Variables looked up and filters applied to write one title or body."
    )
    max_text_overrides: Count = Field(
        200, description="Texts that are overridden: every process keeps all in memory."
    )
    text_cache_seconds: Seconds = Field(
        5, description="How often a process looks for texts that were saved elsewhere, seconds."
    )

    # Schedules
    scheduler_tick_seconds: Seconds = Field(
        0.5,
        description="How often schedulers, and workers that send what was scheduled or held, look "
        "for what is due, seconds.",
    )
    missed_run_grace_seconds: Seconds = Field(
        3600, description="A fire that was missed is made up for within this time, seconds."
    )

    # Scheduled notifications
    scheduled_ahead_seconds: Seconds = Field(
        366 * 86400, description="How far ahead a notification may be scheduled, seconds."
    )
    max_scheduled_per_user: Count = Field(
        100, description="Scheduled notifications that wait for one user."
    )
    max_scheduled_per_cancel_key: Count = Field(
        100, description="Scheduled notifications that wait under one cancelKey."
    )
    cancel_memory_seconds: Seconds = Field(
        86400,
        description="Time for which a cancel by key cancels what is scheduled under it, seconds.",
    )
    scheduled_memory_seconds: Seconds = Field(
        30 * 86400,
        description="Time for which it is remembered how a scheduled notification ended, seconds; "
        "later its id answers NOT_FOUND, and its dedupKey may be used anew.",
    )
    scheduled_lease_seconds: Seconds = Field(
        5,
        description="Time a worker has for the scheduled notifications, or the held deliveries, "
        "that it claimed before another may, seconds.",
    )

    # Audiences and broadcasts
    max_tags_per_user: Count = Field(50, description="Tags that a user has.")
    max_tag_length: Count = Field(50, description="Characters of a tag.")
    max_broadcasts: Count = Field(
        20, description="Broadcasts that are running or paused at the same time."
    )
    max_audience_products: Count = Field(
        50_000, description="Products in the categories that an audience names."
    )
    broadcast_lease_seconds: Seconds = Field(
        30,
        description="Time a worker has for the part of a broadcast that it has in hand before "
        "another may do it again, seconds.",
    )
    broadcast_memory_seconds: Seconds = Field(
        366 * 86400,
        description="Time for which a broadcast that has ended is remembered, seconds; later its "
        "id answers NOT_FOUND, and its dedupKey may be used anew.",
    )

    # Patience
    startup_wait_seconds: Seconds = Field(
        30, description="A starting process waits this long for a database that is not up, seconds."
    )
    mongodb_timeout_seconds: Seconds = Field(
        1.2,
        description="An operation on the database gives up after this time, or half a second "
        "later while no server is known, seconds.",
    )
    mongodb_connections: Count = Field(
        8,
        description="Connections of one process to the database; more wait for their turn. While "
        "half of them ask for pages and counts, further ones are asked for by eight to a command.",
    )
    rabbitmq_timeout_seconds: Seconds = Field(
        1.5,
        description="Connecting to the broker, or its confirm, is given up after this, seconds.",
    )
    rabbitmq_heartbeat_seconds: Count = Field(
        5, description="A connection that is silent for twice this long is opened again, seconds."
    )
    reconnect_seconds: Seconds = Field(
        0.25, description="Between two attempts to reach the broker again, seconds."
    )
    shutdown_seconds: Seconds = Field(
        5,
        description="Work in hand has this long to finish when a process stops, and half of it a "
        "worker's batch, seconds.",
    )

    @property
    def base_url(self) -> str:
        """PUBLIC_URL without a slash at its end, or what it stands for when it is empty."""
        host = f"[{self.gateway_host}]" if ":" in self.gateway_host else self.gateway_host
        return self.public_url.rstrip("/") or f"http://{host}:{self.gateway_port}"

    @property
    def in_production(self) -> bool:
        return self.profile == "production"

    @property
    def has_admin_page(self) -> bool:
        return not self.in_production if self.admin_page is None else self.admin_page


def load_settings() -> Settings:
    """The settings of this process. Raises CannotStart that names the setting at fault."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "a setting"
        raise CannotStart(f"Setting {name} is wrong: {first['msg']}. See .env.example.") from error
    except SettingsError as error:
        name = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        raise CannotStart(
            f"Setting {name.upper()} is wrong: it is a JSON list. See .env.example."
        ) from error
    except (OSError, UnicodeError) as error:
        raise CannotStart(f"The file .env can't be read: {error}.") from error


def describe() -> str:
    """The text of `.env.example`: every setting with its meaning and its default."""
    lines = ["# Every setting of Tidings, with its default. Copy to .env and uncomment to change."]
    for name, field in Settings.model_fields.items():
        default = field.default
        value = "" if default is None else list(default) if isinstance(default, tuple) else default
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines += ["", f"# {field.description}", f"#{name.upper()}={text}"]
    return "\n".join(lines) + "\n"
