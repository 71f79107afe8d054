"""What the environment says. Read once, at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit


class Settings(NamedTuple):
    database_url: str  # "" = none
    database_password: str
    redis_url: str  # "" = none
    log_level: str
    mode: str  # shown by /agent-status
    model_url: str  # "" = the built-in rules answer
    model_key: str
    model: str

    @property
    def database_address(self) -> str:
        """Host, port and name, without user and password."""
        parts = urlsplit(self.database_url)
        return f"{parts.hostname}:{parts.port or 5432}{parts.path}" if parts.hostname else "not connected"

    @property
    def cache_address(self) -> str:
        parts = urlsplit(self.redis_url)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else "not connected"

    @property
    def model_name(self) -> str:
        return (self.model or "default") if self.model_url else "rules"


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    return Settings(
        database_url=environ.get("DATABASE_URL", ""),
        database_password=_secret(environ, "DATABASE_PASSWORD"),
        redis_url=environ.get("REDIS_URL", ""),
        log_level=environ.get("LOG_LEVEL", "info"),
        mode=environ.get("AGENT_MODE", "on its own"),
        model_url=environ.get("OPENAI_BASE_URL", "").rstrip("/"),
        model_key=_secret(environ, "OPENAI_API_KEY"),
        model=environ.get("MODEL", ""),
    )


def _secret(environ: Mapping[str, str], name: str) -> str:
    """A secret from the file that NAME_FILE names, else from NAME itself."""
    path = environ.get(f"{name}_FILE")
    return Path(path).read_text().strip() if path else environ.get(name, "")
