"""Conversations and memories in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from agent.settings import Settings

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


class Message(NamedTuple):
    role: str
    content: str
    said_at: str  # ISO 8601


class Hit(NamedTuple):
    conversation: str
    content: str
    said_at: str
    rank: float


# A question's words, any of which may match: "what is my favourite tea" finds "My favourite tea is oolong".
_ANY_WORD = "nullif(replace(plainto_tsquery('english', %(words)s)::text, ' & ', ' | '), '')::tsquery"
# A search box's words, all of which must match; knows "quoted phrases", or, and -not.
_SEARCH_BOX = "websearch_to_tsquery('english', %(words)s)"
_FIND = """
    select conversation_id, content, said_at, ts_rank(words, query) as rank
    from messages, (select {query} as query) as asked
    where memorable and words @@ query
    order by rank desc, id desc
    limit %(most)s
"""


class Memory:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    def at(cls, settings: Settings) -> Memory:
        """Not connected yet: see `open`. Connections are kept, and tested before they are lent."""
        password = {"password": settings.database_password} if settings.database_password else {}
        pool: Pool = AsyncConnectionPool(
            settings.database_url,
            kwargs={**password, "autocommit": True, "connect_timeout": 5},
            min_size=1,
            max_size=8,
            timeout=5,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )
        return cls(pool)

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def ping(self) -> None:
        """Raises psycopg.OperationalError or psycopg_pool.PoolTimeout when the database does not answer."""
        async with self._pool.connection(timeout=2) as connection:
            await connection.execute("select 1")

    async def add(self, conversation: UUID, messages: Sequence[tuple[str, str, bool]]) -> None:
        """Append (role, content, memorable), all or none; the conversation begins with its first message."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                "insert into conversations (id) values (%s) on conflict do nothing", (conversation,)
            )
            for role, content, memorable in messages:
                await connection.execute(
                    "insert into messages (conversation_id, role, content, memorable) values (%s, %s, %s, %s)",
                    (conversation, role, content, memorable),
                )

    async def messages(self, conversation: UUID, most: int = 200) -> list[Message]:
        """The last `most` messages, oldest first; none when there is no such conversation."""
        rows = await self._rows(
            "select role, content, said_at from messages where conversation_id = %s order by id desc limit %s",
            (conversation, most),
        )
        return [Message(role, content, said_at.isoformat()) for role, content, said_at in reversed(rows)]

    async def search(self, words: str, most: int = 20) -> list[Hit]:
        """What matches all the words, the best first, by PostgreSQL's full-text search."""
        return await self._find(_SEARCH_BOX, words, most)

    async def recall(self, question: str, most: int = 3) -> list[Hit]:
        """What matches a question best. Words of the question that say nothing (what, is, my) don't count."""
        hits = await self._find(_ANY_WORD, question, most)
        return [h for h in hits if h.rank >= hits[0].rank / 2]

    async def counts(self) -> dict[str, int]:
        rows = await self._rows(
            "select (select count(*) from conversations), count(*), count(*) filter (where memorable) from messages"
        )
        conversations, messages, memories = rows[0]
        return {"conversations": conversations, "messages": messages, "memories": memories}

    def connections(self) -> dict[str, int]:
        stats = self._pool.get_stats()
        return {"open": stats.get("pool_size", 0), "idle": stats.get("pool_available", 0)}

    async def _find(self, query: str, words: str, most: int) -> list[Hit]:
        rows = await self._rows(_FIND.format(query=query), {"words": words, "most": most})
        return [Hit(str(c), content, said_at.isoformat(), float(rank)) for c, content, said_at, rank in rows]

    async def _rows(self, query: str, arguments: Any = ()) -> list[TupleRow]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query.encode(), arguments)
            return await cursor.fetchall()
