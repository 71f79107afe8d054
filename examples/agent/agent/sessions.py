"""Running conversations and ready answers in Redis. Everything here expires, and may be lost without harm."""

from __future__ import annotations

import hashlib
import json
import logging
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent.settings import Settings

SESSION_SECONDS = 7 * 24 * 3600
ANSWER_SECONDS = 10 * 60
RECENT_MESSAGES = 20  # how much of a conversation a model is shown

log = logging.getLogger(__name__)


class Sessions:
    """When Redis does not answer, nothing is found and nothing is kept: slower, but never wrong."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @classmethod
    def at(cls, settings: Settings) -> Sessions:
        return cls(
            Redis.from_url(
                settings.redis_url,
                decode_responses=True,
                socket_connect_timeout=1,
                socket_timeout=1,
                health_check_interval=15,
            )
        )

    async def close(self) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises RedisError when the cache does not answer."""
        await self._redis.ping()

    async def recent(self, session: str) -> list[tuple[str, str]] | None:
        """The last messages as (role, content), oldest first; None when the session is not here."""
        try:
            rows = await self._redis.lrange(f"session:{session}:recent", 0, -1)  # type: ignore[misc]
        except RedisError as e:
            log.warning("sessions are not to be had: %s", e)
            return None
        return [(role, content) for role, content in map(json.loads, rows)] if rows else None

    async def keep(self, session: str, messages: list[tuple[str, str]], *, turns: int) -> None:
        """Append messages to what is recent, and count the turns. The session's time starts again."""
        key = f"session:{session}"
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(f"{key}:recent", *(json.dumps(m) for m in messages))
                pipe.ltrim(f"{key}:recent", -RECENT_MESSAGES, -1)
                pipe.hsetnx(key, "started", str(int(time.time())))
                pipe.hset(key, "seen", str(int(time.time())))
                pipe.hincrby(key, "turns", turns)
                pipe.expire(f"{key}:recent", SESSION_SECONDS)
                pipe.expire(key, SESSION_SECONDS)
                await pipe.execute()
        except RedisError as e:
            log.warning("the session could not be kept: %s", e)

    async def known(self, session: str) -> dict[str, int]:
        """started, seen (Unix time) and turns; empty when the session is not here."""
        try:
            found = await self._redis.hgetall(f"session:{session}")  # type: ignore[misc]
        except RedisError:
            return {}
        return {k: int(v) for k, v in found.items()}

    async def answer(self, model: str, question: str) -> str | None:
        """The answer given to the same question a short while ago."""
        try:
            found: str | None = await self._redis.get(_answer_key(model, question))
            await self._redis.incr("answers:hits" if found is not None else "answers:misses")
        except RedisError:
            return None
        return found

    async def keep_answer(self, model: str, question: str, answer: str) -> None:
        try:
            await self._redis.set(_answer_key(model, question), answer, ex=ANSWER_SECONDS)
        except RedisError as e:
            log.warning("the answer could not be kept: %s", e)

    async def counts(self) -> dict[str, int]:
        try:
            hits, misses = await self._redis.mget("answers:hits", "answers:misses")
            live = 0
            async for _ in self._redis.scan_iter("session:*:recent", count=500):
                live += 1
        except RedisError:
            return {}
        return {"live_sessions": live, "answer_hits": int(hits or 0), "answer_misses": int(misses or 0)}


def _answer_key(model: str, question: str) -> str:
    plain = " ".join(question.lower().split())
    return "answer:" + hashlib.sha256(f"{model}\n{plain}".encode()).hexdigest()
