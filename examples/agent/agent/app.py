"""The agent over HTTP."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any
from uuid import UUID, uuid4

import psycopg
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from agent import brains, rules, settings, sse
from agent.memory import Memory
from agent.sessions import RECENT_MESSAGES, Sessions

SETTINGS = settings.read()
STARTED = time.monotonic()
NO_DATABASE = (psycopg.OperationalError, PoolTimeout)

logging.basicConfig(level=SETTINGS.log_level.upper(), format="%(levelname)s: %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("watchfiles").setLevel(logging.WARNING)
log = logging.getLogger(__name__)

memory = Memory.at(SETTINGS)
sessions = Sessions.at(SETTINGS)
brain = brains.choose(SETTINGS)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await memory.open()
    log.info("ready; answers come from %s", brain.name)
    yield
    await memory.close()
    await sessions.close()
    if isinstance(brain, brains.Model):
        await brain.close()


app = FastAPI(title="Agent", description="A chat agent with a memory.", version="1.0", lifespan=lifespan)


@app.exception_handler(psycopg.OperationalError)
@app.exception_handler(PoolTimeout)
async def database_is_away(_: Request, error: Exception) -> JSONResponse:
    log.error("the database does not answer: %s", error)
    return JSONResponse({"detail": "the database does not answer"}, status_code=503)


@app.get("/")
async def root() -> dict[str, str]:
    return {
        "message": "Agent ready with full infrastructure",
        "database": SETTINGS.database_address,
        "cache": SETTINGS.cache_address,
        "chat": "/ui",
    }


@app.get("/health")
async def health(response: Response) -> dict[str, str]:
    """Asks the database and the cache. 503 when one of them does not answer."""

    async def state(ping: Any, *failures: type[Exception]) -> str:
        try:
            await ping()
        except failures as e:
            log.warning("health: %s", e)
            return "does not answer"
        return "ok"

    database, cache = await asyncio.gather(state(memory.ping, *NO_DATABASE), state(sessions.ping, RedisError))
    healthy = database == cache == "ok"
    if not healthy:
        response.status_code = 503
    return {"status": "healthy" if healthy else "unhealthy", "database": database, "cache": cache}


@app.get("/config")
async def config() -> dict[str, str | bool]:
    """What is configured; never a password or a key."""
    return {
        "log_level": SETTINGS.log_level,
        "database_configured": bool(SETTINGS.database_url),
        "cache_configured": bool(SETTINGS.redis_url),
        "model": SETTINGS.model_name,
        "model_url": SETTINGS.model_url or "none: the built-in rules answer",
    }


@app.get("/agent-status")
async def agent_status() -> dict[str, str]:
    return {"status": "running", "mode": SETTINGS.mode, "model": brain.name}


@app.get("/stats")
async def stats() -> dict[str, Any]:
    return {
        "uptime_seconds": round(time.monotonic() - STARTED, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "database_connections": memory.connections(),
        **await memory.counts(),
        **await sessions.counts(),
    }


@app.get("/memories")
async def memories(
    q: Annotated[str, Query(min_length=1, max_length=200, description='words; also "a phrase", or, -not')],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """What was told to the agent, in any conversation, found by PostgreSQL's full-text search."""
    hits = await memory.search(_text(q), limit)
    return {"query": q, "memories": [h._asdict() for h in hits]}


@app.get("/sessions/{session_id}")
async def session(session_id: UUID) -> dict[str, Any]:
    messages = await memory.messages(session_id)
    if not messages:
        raise HTTPException(404, "there is no such session")
    return {
        "session_id": str(session_id),
        "cached": await sessions.known(str(session_id)),
        "messages": [m._asdict() for m in messages],
    }


class Chat(BaseModel):
    message: str = Field(min_length=1, max_length=4000)
    session_id: UUID | None = Field(None, description="leave it out to begin a conversation")
    stream: bool = Field(True, description="false: the whole answer as one JSON object")


@app.post("/chat", response_model=None)
async def chat(asked: Chat) -> Response | dict[str, Any]:
    """Say something. Streams server-sent events: `session`, then `tool` and `token`, then `done` or `error`."""
    message = _text(asked.message).strip()
    if not message:
        raise HTTPException(422, "the message is empty")
    session_id = asked.session_id or uuid4()
    history = await _history(session_id)
    events = _converse(session_id, message, history)
    if asked.stream:
        return StreamingResponse(
            (sse.write(name, data) async for name, data in events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
    async for name, data in events:
        if name == "error":
            raise HTTPException(502, data["detail"])
        last = data
    return last


async def _history(session_id: UUID) -> list[tuple[str, str]]:
    """The conversation so far: from Redis, or, when it is not there any more, from PostgreSQL."""
    recent = await sessions.recent(str(session_id))
    if recent is None:
        recent = [(m.role, m.content) for m in await memory.messages(session_id, RECENT_MESSAGES)]
        if recent:
            await sessions.keep(str(session_id), recent, turns=0)
    return recent


async def _converse(
    session_id: UUID, message: str, history: list[tuple[str, str]]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of one turn. What was said is kept before the last one, `done`, is sent."""
    yield "session", {"session_id": str(session_id), "model": brain.name}
    cacheable = brain.cacheable(message, history)
    answer = await sessions.answer(brain.name, message) if cacheable else None
    cached = answer is not None
    try:
        if answer is not None:
            yield "token", {"text": answer}
        else:
            answer = ""
            async for piece in brain.reply(message, history, _recall):
                if isinstance(piece, brains.Used):
                    yield "tool", piece._asdict()
                else:
                    answer += piece.text
                    yield "token", {"text": piece.text}
        # shielded: who closes the page now has still said it
        said = [("user", message, brain.memorable(message)), ("assistant", answer, False)]
        await asyncio.shield(asyncio.create_task(memory.add(session_id, said)))
    except brains.BrainFailed as e:
        log.error("%s", e)
        yield "error", {"detail": str(e)}
        return
    except NO_DATABASE as e:
        log.error("the database does not answer: %s", e)
        yield "error", {"detail": "the database does not answer"}
        return
    await sessions.keep(str(session_id), [("user", message), ("assistant", answer)], turns=1)
    if cacheable and not cached:
        await sessions.keep_answer(brain.name, message, answer)
    yield "done", {"session_id": str(session_id), "reply": answer, "cached": cached, "model": brain.name}


async def _recall(question: str) -> tuple[rules.Found, ...]:
    hits = await memory.recall(_text(question))
    return tuple(rules.Found(h.content, h.said_at[:10]) for h in hits)


def _text(text: str) -> str:
    """PostgreSQL's text has no NUL."""
    return text.replace("\0", "")


@app.get("/ui", include_in_schema=False)
async def ui() -> HTMLResponse:
    page = files("agent").joinpath("page/index.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})
