"""The escape suite: what a process in a container tries, and a table of it that docs/security.md shows."""
