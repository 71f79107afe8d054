#!/bin/sh
# Options alone are for memcached; any other command is run as it is.
set -e

case "${1:-}" in
-*) set -- memcached "$@" ;;
esac

exec "$@"
