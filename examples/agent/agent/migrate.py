"""Brings the database's tables up to date: `python -m agent.migrate`. Ends with 0 when they are.

Each file in migrations/ runs once, in order, in a transaction of its own. Two at the same time wait for each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg

from agent import settings

FOLDER = Path(__file__).parent / "migrations"
LOCK = 728_001  # any number, the same for all who migrate this database
PATIENCE = 30.0  # seconds for a server that is not up yet


def pending(files: Iterable[str], done: set[str]) -> list[str]:
    """The names yet to run, in order. ValueError if a new one would run before one that was done."""
    todo = sorted(set(files) - done)
    if todo and done and todo[0] < max(done):
        raise ValueError(f"{todo[0]} comes before {max(done)}, which has already run: give it a later number")
    return todo


def connect(url: str, password: str, patience: float) -> psycopg.Connection[tuple[object, ...]]:
    deadline = time.monotonic() + patience
    while True:
        try:
            return psycopg.connect(url, password=password or None, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def migrate(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Run what is pending; the names that ran."""
    connection.execute("select pg_advisory_lock(%s)", (LOCK,))
    connection.execute(
        "create table if not exists migrations (name text primary key, ran_at timestamptz not null default now())"
    )
    done = {str(name) for (name,) in connection.execute("select name from migrations")}
    todo = pending((p.name for p in FOLDER.glob("*.sql")), done)
    for name in todo:
        with connection.transaction():
            connection.execute((FOLDER / name).read_bytes())
            connection.execute("insert into migrations (name) values (%s)", (name,))
    return todo


def main() -> int:
    wanted = settings.read()
    try:
        with connect(wanted.database_url, wanted.database_password, PATIENCE) as connection:
            ran = migrate(connection)
    except (psycopg.Error, ValueError) as e:
        print(f"migrate: {e}", file=sys.stderr)
        return 1
    print(f"migrate: {', '.join(ran) or 'nothing to do'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
