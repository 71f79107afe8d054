"""A chat agent with a memory.

rules, calculator, clock, openai_wire and sse decide and translate: values in, values out.
memory (PostgreSQL), sessions (Redis) and brains (who answers) do. app ties them to HTTP.
"""
