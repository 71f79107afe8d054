"""Kapelle: `docker compose` without Docker."""

__version__ = "0.1.0"

# What `version --short` answers: the Compose release whose behaviour we follow (scripts compare it).
COMPOSE_VERSION = "2.40.3"
