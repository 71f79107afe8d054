from fastapi import FastAPI
import os
import psycopg2
import redis

app = FastAPI()

# Read environment variables
DATABASE_URL = os.getenv("DATABASE_URL", "not configured")
REDIS_URL = os.getenv("REDIS_URL", "not configured")
LOG_LEVEL = os.getenv("LOG_LEVEL", "info")

@app.get("/")
def read_root():
    return {
        "message": "Agent ready with full infrastructure",
        "database": DATABASE_URL.split("@")[1] if "@" in DATABASE_URL else "not connected",
        "cache": REDIS_URL.split("//")[1] if "//" in REDIS_URL else "not connected"
    }

@app.get("/health")
def health_check():
    return {"status": "healthy"}

@app.get("/config")
def get_config():
    return {
        "log_level": LOG_LEVEL,
        "database_configured": bool(DATABASE_URL and "not configured" not in DATABASE_URL),
        "cache_configured": bool(REDIS_URL and "not configured" not in REDIS_URL)
    }
