"""The catalogue of events as an AsyncAPI 3 document: what `asyncapi.yaml` is exported from."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from services.shared.events import BATCH_CONTENT_TYPE, CATALOGUE, CONTENT_TYPE, Data
from services.shared.publisher import MOST_USERS
from services.shared.topology import EVENTS, EVERYBODY, LIVE

_WHOSE = (
    "One of those it is for: the header CC names the others. "
    f"`{EVERYBODY}` where they are more than {MOST_USERS}."
)


def asyncapi() -> str:
    """The document, as YAML."""
    types = list(CATALOGUE.values())
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidings",
            "version": "1.0.0",
            "license": {"name": "MIT"},
            "description": (
                "Events are CloudEvents 1.0 in structured JSON, sent persistent over AMQP 0-9-1. "
                f"Publish to the topic exchange {EVENTS} with the event's type as routing key. An "
                "event is known by its source and id: sent again it changes nothing. What can't "
                "be handled ends in the queue tidings.dead-letters with the reason. What "
                f"{LIVE} hands out may be several events, some of them for others: an array of the "
                f"content type {BATCH_CONTENT_TYPE}."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {data.type: _channel(data) for data in types},
        "operations": {
            f"{'hear' if data.live else 'publish'}-{data.type.replace('.', '-')}": {
                "action": "send" if data.live else "receive",
                "channel": {"$ref": f"#/channels/{data.type}"},
                "summary": _summary(data),
            }
            for data in types
        },
        "components": {
            "messages": {data.__name__: _message(data) for data in types},
            "schemas": schemas,
        },
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


def _channel(data: type[Data]) -> dict[str, Any]:
    exchange = {"name": LIVE if data.live else EVENTS, "type": "topic", "durable": True}
    return {
        "address": "{userId}" if data.live else data.type,
        **({"parameters": {"userId": {"description": _WHOSE}}} if data.live else {}),
        "messages": {data.__name__: {"$ref": f"#/components/messages/{data.__name__}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange}},
    }


def _message(data: type[Data]) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    return {
        "name": data.type,
        "summary": _summary(data),
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": text,
                "source": text,
                "type": {"const": data.type},
                "subject": {"type": "string"},
                "time": {"type": "string", "format": "date-time"},
                "data": {"$ref": f"#/components/schemas/{data.__name__}"},
            },
        },
    }


def _summary(data: type[Data]) -> str:
    return " ".join((data.__doc__ or "").split())
