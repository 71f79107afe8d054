#!/bin/sh
# Options, and words that are no command of this image (or a script that may not be executed), are for node.
set -e

for_node() {
	case "$1" in
	-*) return 0 ;;
	esac
	if [ -f "$1" ] && [ ! -x "$1" ]; then
		return 0
	fi
	! command -v "$1" >/dev/null 2>&1
}

if for_node "${1:-}"; then
	set -- node "$@"
fi

exec "$@"
