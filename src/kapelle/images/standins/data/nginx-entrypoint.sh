#!/bin/sh
# Prepares the configuration by the scripts in /docker-entrypoint.d, then starts the command.
set -e

say() {
	if [ -z "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ]; then
		echo "$0: $*"
	fi
}

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
	if [ -n "$(find /docker-entrypoint.d/ -mindepth 1 -maxdepth 1 -type f 2>/dev/null)" ]; then
		say "/docker-entrypoint.d/ is not empty, its scripts are run in the order of their names"
		for script in $(find /docker-entrypoint.d/ -follow -type f | sort -V); do
			case "$script" in
			*.envsh | *.sh)
				if [ ! -x "$script" ]; then
					say "Ignoring $script, not executable"
				elif [ "${script%.envsh}" != "$script" ]; then
					say "Sourcing $script"
					. "$script"
				else
					say "Launching $script"
					"$script"
				fi
				;;
			*) say "Ignoring $script" ;;
			esac
		done
		say "Configuration complete; ready for start up"
	else
		say "No files found in /docker-entrypoint.d/, skipping configuration"
	fi
fi

exec "$@"
