#!/bin/sh
# Starts redis-server as the user redis; any other command is run as it is.
set -e

# options or a configuration file alone are for redis-server
case "${1:-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac

if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
	# the data folder may be a new bind mount that belongs to root
	find . \! -user redis -exec chown redis '{}' +
	exec gosu redis "$0" "$@"
fi

# files of the server are for its user only, unless the caller has set a umask
if [ "$(umask)" = 0022 ]; then
	umask 0077
fi

exec "$@"
