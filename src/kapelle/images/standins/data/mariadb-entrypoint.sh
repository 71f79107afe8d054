#!/usr/bin/env bash
# Makes the data directory on first use, sets passwords, database and user, runs the scripts in
# /docker-entrypoint-initdb.d, starts the server. MYSQL_* variables mean what MARIADB_* do.
set -eo pipefail
shopt -s nullglob

say() { printf '%s [%s] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$1" "${*:2}"; }
mysql_note() { say Note "$@"; }
mysql_warn() { say Warn "$@" >&2; }
mysql_error() {
	say ERROR "$@" >&2
	exit 1
}

# NAME, or the content of the file that NAME_FILE names, or a default
take() {
	local name=$1 file="${1}_FILE" default=${2:-}
	if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
		mysql_error "Both $name and $file are set (but are exclusive)"
	fi
	local value=$default
	if [ -n "${!name:-}" ]; then
		value=${!name}
	elif [ -n "${!file:-}" ]; then
		value=$(<"${!file}")
	fi
	export "$name"="$value"
	unset "$file"
}

# MARIADB_NAME, else MYSQL_NAME; both are set to what counts
take_both() {
	local name=$1 default=${2:-}
	take "MYSQL_$name"
	local old="MYSQL_$name" new="MARIADB_$name"
	take "$new" "${!old:-$default}"
	export "$old"="${!new}"
}

settings() {
	take_both ROOT_HOST '%'
	take_both DATABASE
	take_both USER
	take_both PASSWORD
	take_both ROOT_PASSWORD
	take MARIADB_PASSWORD_HASH
	take MARIADB_ROOT_PASSWORD_HASH
	: "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:=${MYSQL_ALLOW_EMPTY_PASSWORD:-}}"
	: "${MARIADB_RANDOM_ROOT_PASSWORD:=${MYSQL_RANDOM_ROOT_PASSWORD:-}}"
	: "${MARIADB_INITDB_SKIP_TZINFO:=${MYSQL_INITDB_SKIP_TZINFO:-}}"
	export MARIADB_ALLOW_EMPTY_ROOT_PASSWORD MARIADB_RANDOM_ROOT_PASSWORD MARIADB_INITDB_SKIP_TZINFO
	if [ -n "${MARIADB_MASTER_HOST:-}${MARIADB_REPLICATION_USER:-}" ]; then
		mysql_error 'this stand-in sets up no replication (MARIADB_MASTER_HOST, MARIADB_REPLICATION_USER)'
	fi
}

check_passwords() {
	if [ -z "$MARIADB_ROOT_PASSWORD$MARIADB_ROOT_PASSWORD_HASH$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
		mysql_error $'Database is uninitialized and password option is not specified\n\tYou need to specify one of MARIADB_ROOT_PASSWORD, MARIADB_ROOT_PASSWORD_HASH, MARIADB_ALLOW_EMPTY_ROOT_PASSWORD and MARIADB_RANDOM_ROOT_PASSWORD'
	fi
	if [ -n "$MARIADB_ROOT_PASSWORD" ] && [ -n "$MARIADB_ROOT_PASSWORD_HASH" ]; then
		mysql_error 'Cannot specify MARIADB_ROOT_PASSWORD_HASH and MARIADB_ROOT_PASSWORD option.'
	fi
	if [ -n "$MARIADB_PASSWORD" ] && [ -n "$MARIADB_PASSWORD_HASH" ]; then
		mysql_error 'Cannot specify MARIADB_PASSWORD_HASH and MARIADB_PASSWORD option.'
	fi
	if [ -n "$MARIADB_USER" ] && [ -z "$MARIADB_PASSWORD$MARIADB_PASSWORD_HASH" ]; then
		mysql_error 'MARIADB_USER is set, but neither MARIADB_PASSWORD nor MARIADB_PASSWORD_HASH'
	fi
	if [ "$MARIADB_USER" = root ]; then
		mysql_error 'MARIADB_USER="root": MARIADB_USER and MARIADB_PASSWORD are for a further user; root has MARIADB_ROOT_PASSWORD'
	fi
}

# what the server will use for one of its options, as its files and the command line say
option_of() {
	"${@:2}" --verbose --help 2>/dev/null | awk -v name="$1" '$1 == name { sub(/^[^ \t]+[ \t]+/, ""); print; exit }'
}

literal() { # a SQL string
	local text=${1//\\/\\\\}
	printf "'%s'" "${text//\'/\\\'}"
}
identifier() { printf '`%s`' "${1//\`/\`\`}"; }

own() {
	find "$1" \! -user mysql -exec chown mysql: '{}' +
}

make_directory() {
	mysql_note "Initializing database files"
	local words=(--datadir="$DATADIR" --auth-root-authentication-method=normal --skip-test-db --rpm --skip-log-bin)
	mariadb-install-db "${words[@]}" "${@:2}" >/tmp/install.log 2>&1 || {
		cat /tmp/install.log >&2
		exit 1
	}
	rm -f /tmp/install.log
	mysql_note "Database files initialized"
}

# A server for the set-up alone, at a socket of its own: a health check that asks at the usual place must not take
# it for the real one. Scripts find it by MYSQL_UNIX_PORT.
docker_temp_server_start() {
	mysql_note "Starting temporary server"
	setup_sockets=$(mktemp -d)
	export MYSQL_UNIX_PORT="$setup_sockets/mysqld.sock"
	SOCKET=$MYSQL_UNIX_PORT
	"$@" --skip-networking --default-time-zone=SYSTEM --socket="$SOCKET" --wsrep-on=OFF --skip-log-bin \
		--loose-innodb_buffer_pool_dump_at_shutdown=0 --skip-slave-start &
	MARIADB_PID=$!
	local tries=0
	until mariadb-admin --no-defaults --socket="$SOCKET" ping >/dev/null 2>&1; do
		tries=$((tries + 1))
		if ! kill -0 "$MARIADB_PID" 2>/dev/null || [ "$tries" -gt 600 ]; then
			mysql_error "Unable to start server."
		fi
		sleep 0.1
	done
	mysql_note "Temporary server started."
}

docker_temp_server_stop() {
	mysql_note "Stopping temporary server"
	kill "$MARIADB_PID"
	wait "$MARIADB_PID" || :
	rm -rf "$setup_sockets"
	unset MYSQL_UNIX_PORT
	mysql_note "Temporary server stopped"
}

# the names that users' scripts know
docker_exec_client() {
	MYSQL_PWD=${MARIADB_ROOT_PASSWORD:-} mariadb --protocol=socket -uroot -hlocalhost --socket="$SOCKET" "$@"
}
docker_process_sql() {
	local words=(--comments)
	if [ "${1:-}" = --dont-use-mysql-root-password ]; then
		shift
		MARIADB_ROOT_PASSWORD= docker_exec_client "${words[@]}" "$@"
		return
	fi
	if [ -n "$MARIADB_DATABASE" ]; then
		words+=(--database="$MARIADB_DATABASE")
	fi
	docker_exec_client "${words[@]}" "$@"
}

time_zones() {
	[ -z "$MARIADB_INITDB_SKIP_TZINFO" ] || return 0
	mariadb-tzinfo-to-sql --skip-write-binlog /usr/share/zoneinfo 2>/dev/null |
		docker_process_sql --dont-use-mysql-root-password --database=mysql
}

set_up() {
	time_zones
	if [ -n "$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
		MARIADB_ROOT_PASSWORD=$(pwgen --numerals --capitalize --symbols --remove-chars="'\\" -1 32)
		export MARIADB_ROOT_PASSWORD MYSQL_ROOT_PASSWORD=$MARIADB_ROOT_PASSWORD
		mysql_note "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
	fi
	local secret health
	if [ -n "$MARIADB_ROOT_PASSWORD_HASH" ]; then
		secret="PASSWORD $(literal "$MARIADB_ROOT_PASSWORD_HASH")"
	else
		secret=$(literal "$MARIADB_ROOT_PASSWORD")
	fi
	health=$(pwgen --numerals --capitalize -1 32)
	{
		printf 'SET @@SESSION.SQL_LOG_BIN=0;\nSET @@SESSION.SQL_MODE=REPLACE(@@SESSION.SQL_MODE, "NO_BACKSLASH_ESCAPES", "");\n'
		printf "DROP DATABASE IF EXISTS test;\nDELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');\n"
		printf "DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';\nDELETE FROM mysql.db WHERE Db LIKE 'test%%';\nFLUSH PRIVILEGES;\n"
		printf "ALTER USER 'root'@'localhost' IDENTIFIED BY %s;\n" "$secret"
		if [ -n "$MARIADB_ROOT_HOST" ] && [ "$MARIADB_ROOT_HOST" != localhost ]; then
			printf "CREATE USER 'root'@%s IDENTIFIED BY %s;\n" "$(literal "$MARIADB_ROOT_HOST")" "$secret"
			printf "GRANT ALL ON *.* TO 'root'@%s WITH GRANT OPTION;\n" "$(literal "$MARIADB_ROOT_HOST")"
			printf "GRANT PROXY ON ''@'%%' TO 'root'@%s WITH GRANT OPTION;\n" "$(literal "$MARIADB_ROOT_HOST")"
		fi
		if [ -n "${MARIADB_MYSQL_LOCALHOST_USER:-}" ]; then
			printf "CREATE USER mysql@localhost IDENTIFIED VIA unix_socket;\n"
			if [ -n "${MARIADB_MYSQL_LOCALHOST_GRANTS:-}" ]; then
				printf 'GRANT %s ON *.* TO mysql@localhost;\n' "$MARIADB_MYSQL_LOCALHOST_GRANTS"
			fi
		fi
		local place
		for place in localhost 127.0.0.1 ::1; do
			printf "CREATE USER healthcheck@'%s' IDENTIFIED BY '%s';\n" "$place" "$health"
		done
		if [ -n "$MARIADB_DATABASE" ]; then
			mysql_note "Creating database $MARIADB_DATABASE" >&2
			printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$(identifier "$MARIADB_DATABASE")"
		fi
		if [ -n "$MARIADB_USER" ]; then
			mysql_note "Creating user $MARIADB_USER" >&2
			if [ -n "$MARIADB_PASSWORD_HASH" ]; then
				secret="PASSWORD $(literal "$MARIADB_PASSWORD_HASH")"
			else
				secret=$(literal "$MARIADB_PASSWORD")
			fi
			printf "CREATE USER %s@'%%' IDENTIFIED BY %s;\n" "$(literal "$MARIADB_USER")" "$secret"
			if [ -n "$MARIADB_DATABASE" ]; then
				local pattern=${MARIADB_DATABASE//_/\\_}
				mysql_note "Giving user $MARIADB_USER access to schema $MARIADB_DATABASE" >&2
				printf "GRANT ALL ON %s.* TO %s@'%%';\n" "$(identifier "$pattern")" "$(literal "$MARIADB_USER")"
			fi
		fi
	} | docker_process_sql --dont-use-mysql-root-password --database=mysql --binary-mode
	(umask 077 && printf '[mariadb-client]\nuser=healthcheck\npassword=%s\nport=3306\nsocket=/run/mysqld/mysqld.sock\nprotocol=tcp\n' \
		"$health" >"$DATADIR/.my-healthcheck.cnf")
}

run_scripts() {
	local f
	for f; do
		case "$f" in
		*.sh)
			if [ -x "$f" ]; then
				mysql_note "$0: running $f"
				"$f"
			else
				mysql_note "$0: sourcing $f"
				. "$f"
			fi
			;;
		*.sql)
			mysql_note "$0: running $f"
			docker_process_sql <"$f"
			;;
		*.sql.gz)
			mysql_note "$0: running $f"
			gunzip -c "$f" | docker_process_sql
			;;
		*.sql.xz)
			mysql_note "$0: running $f"
			xzcat "$f" | docker_process_sql
			;;
		*.sql.zst)
			mysql_note "$0: running $f"
			zstd -dc "$f" | docker_process_sql
			;;
		*) mysql_warn "$0: ignoring $f" ;;
		esac
	done
}

# The data is of an older server: told, and done if MARIADB_AUTO_UPGRADE says so.
upgrade() {
	local have now
	have=$(cat "$DATADIR/mariadb_upgrade_info" "$DATADIR/mysql_upgrade_info" 2>/dev/null | head -n1 | tr -d '\0' | cut -d- -f1) || :
	now=${MARIADB_VERSION%%-*}
	if [ -z "$have" ] || [ "${have%.*}" = "${now%.*}" ]; then
		return 0
	fi
	if [ -z "${MARIADB_AUTO_UPGRADE:-}" ]; then
		mysql_note "MariaDB upgrade (mariadb-upgrade) required: the data is of $have, the server is $now; MARIADB_AUTO_UPGRADE=1 does it at the start"
		return 0
	fi
	mysql_note "Starting mariadb-upgrade"
	docker_temp_server_start "$@" --skip-grant-tables
	mariadb-upgrade --socket="$SOCKET" --upgrade-system-tables
	docker_temp_server_stop
	mysql_note "Finished mariadb-upgrade"
}

only_asks() {
	local word
	for word; do
		case "$word" in
		-'?' | --help | --print-defaults | -V | --version) return 0 ;;
		esac
	done
	return 1
}

main() {
	if [ "${1:0:1}" = - ]; then
		set -- mariadbd "$@"
	fi
	if { [ "$1" = mariadbd ] || [ "$1" = mysqld ]; } && ! only_asks "$@"; then
		mysql_note "Entrypoint script for MariaDB Server ${MARIADB_VERSION:-} started."
		DATADIR=$(option_of datadir "$@")
		DATADIR=${DATADIR:-/var/lib/mysql}
		DATADIR=${DATADIR%/}
		mkdir -p "$DATADIR"
		if [ "$(id -u)" = 0 ]; then
			own "$DATADIR"
			own /run/mysqld
			mysql_note "Switching to dedicated user 'mysql'"
			exec gosu mysql "$BASH_SOURCE" "$@"
		fi
		settings
		if [ ! -d "$DATADIR/mysql" ]; then
			check_passwords
			ls /docker-entrypoint-initdb.d/ >/dev/null
			make_directory "$@"
			docker_temp_server_start "$@"
			set_up
			run_scripts /docker-entrypoint-initdb.d/*
			docker_temp_server_stop
			printf '%s-MariaDB' "${MARIADB_VERSION%%-*}" >"$DATADIR/mariadb_upgrade_info"
			mysql_note "MariaDB init process done. Ready for start up."
		else
			upgrade "$@"
		fi
	fi
	exec "$@"
}

main "$@"
