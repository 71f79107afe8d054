#!/usr/bin/env bash
# Checks of the running server, all of which must hold: --connect, --innodb_initialized, --innodb_buffer_pool_loaded,
# --mariadbupgrade, --su-mysql. --defaults-file, --defaults-extra-file and --defaults-group-suffix choose the login.
set -eo pipefail

login=(--defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf)
checked=

ask() {
	mariadb "${login[@]}" --skip-ssl -h 127.0.0.1 --protocol tcp --skip-column-names --batch -e "$1" 2>&1
}

connect() { # a refusal of the password comes from a server that runs
	local said
	said=$(ask 'SELECT 1') && return 0
	[[ "$said" == *"Access denied"* ]]
}
innodb_initialized() {
	[ "$(ask "SELECT 1 FROM information_schema.ENGINES WHERE engine = 'innodb' AND support IN ('YES', 'DEFAULT', 'ENABLED')")" = 1 ]
}
innodb_buffer_pool_loaded() {
	[[ "$(ask "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_buffer_pool_load_status'")" != *loading* ]]
}
mariadbupgrade() {
	local have
	have=$(tr -d '\0' </var/lib/mysql/mariadb_upgrade_info | cut -d- -f1)
	[ "${have%.*}" = "$(v=${MARIADB_VERSION%%-*} && printf '%s' "${v%.*}")" ]
}

for word; do
	case "$word" in
	--su-mysql) [ "$(id -u)" != 0 ] || exec gosu mysql "$BASH_SOURCE" "${@/--su-mysql/}" ;;
	--su=*) [ "$(id -u)" != 0 ] || exec gosu "${word#--su=}" "$BASH_SOURCE" "${@/$word/}" ;;
	--no-defaults) login=() ;;
	--defaults-*=* ) login=("$word") ;;
	--connect | --innodb_initialized | --innodb_buffer_pool_loaded | --mariadbupgrade)
		checked=yes
		"${word#--}" || {
			printf >&2 'healthcheck %s failed\n' "${word#--}"
			exit 1
		}
		;;
	'') ;;
	*)
		printf >&2 'healthcheck.sh: unknown check %s\n' "$word"
		exit 1
		;;
	esac
done
if [ -z "$checked" ]; then
	printf >&2 'healthcheck.sh: name a check, such as --connect --innodb_initialized\n'
	exit 1
fi
