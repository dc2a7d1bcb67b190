"""Asks a gateway what Schemathesis makes of its schema: a program, run by tests/test_fuzz.py.

In a process of its own, since Schemathesis blocks its thread, and pytest rewrites what it imports.
"""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.graphql import from_url, nodes, scalar

INTERNAL = "INTERNAL_SERVER_ERROR"

scalar("JSON", st.text(max_size=20).map(nodes.String) | st.integers().map(nodes.Int))
scalar("DateTime", st.datetimes().map(lambda moment: nodes.String(f"{moment.isoformat()}Z")))


def main(url: str, token: str, examples: int) -> None:
    """Raises AssertionError with the document for which the gateway had an internal error."""
    headers = {"authorization": f"Bearer {token}"}
    found: Any = from_url(url).get_all_operations()
    operations = [one.ok() for one in found]
    # Who is asked for stays logged in.
    staying = [one.as_strategy() for one in operations if "logout" not in one.label]
    assert len(staying) == len(operations) - 1

    @given(case=st.one_of(staying))
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: Any) -> None:
        response = case.call(headers=headers, timeout=20)
        assert response.status_code == 200, response.text
        errors = response.json().get("errors", [])
        assert INTERNAL not in [error["extensions"]["code"] for error in errors], case.body

    ask()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
