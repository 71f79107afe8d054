#!/bin/sh
# The official image's server has protected mode off unless it is told otherwise: a container's port is open to its
# network only. Debian's has it on, so it is switched off here where nobody has chosen.
for word in "$@"; do
	case "$word" in
	--protected-mode | --version | -v | --help | -h | --test-memory | --check-system | -)
		exec /usr/bin/redis-server "$@"
		;;
	esac
	if [ -f "$word" ] && grep -q '^[[:space:]]*protected-mode[[:space:]]' "$word"; then
		exec /usr/bin/redis-server "$@"
	fi
done
exec /usr/bin/redis-server "$@" --protected-mode no
