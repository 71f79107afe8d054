#!/usr/bin/env bash
# Makes the database cluster on first use, runs the scripts in /docker-entrypoint-initdb.d, starts the server.
set -Eeo pipefail

# NAME, or the content of the file that NAME_FILE names, or a default
take() {
	local name=$1 file="${1}_FILE" default=${2:-}
	if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
		printf >&2 'error: both %s and %s are set (but are exclusive)\n' "$name" "$file"
		exit 1
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

settings() {
	take POSTGRES_PASSWORD
	take POSTGRES_USER postgres
	take POSTGRES_DB "$POSTGRES_USER"
	take POSTGRES_INITDB_ARGS
	: "${POSTGRES_HOST_AUTH_METHOD:=}"
	cluster_exists=
	if [ -s "$PGDATA/PG_VERSION" ]; then
		cluster_exists=yes
	fi
}

directories() {
	local user
	user=$(id -u)
	mkdir -p "$PGDATA"
	chmod 00700 "$PGDATA" || :
	mkdir -p /var/run/postgresql || :
	chmod 03775 /var/run/postgresql || :
	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
		mkdir -p "$POSTGRES_INITDB_WALDIR"
		if [ "$user" = 0 ]; then
			find "$POSTGRES_INITDB_WALDIR" \! -user postgres -exec chown postgres '{}' +
		fi
		chmod 700 "$POSTGRES_INITDB_WALDIR"
	fi
	if [ "$user" = 0 ]; then
		find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
		find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
	fi
}

require_password() {
	if [ "${#POSTGRES_PASSWORD}" -ge 100 ]; then
		echo >&2 'WARNING: the POSTGRES_PASSWORD has 100 characters or more; old psql clients cut it off'
	fi
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		cat >&2 <<-'EOE'
			Error: Database is uninitialized and superuser password is not specified.
			       You must specify POSTGRES_PASSWORD to a non-empty value for the
			       superuser. For example, "-e POSTGRES_PASSWORD=password" on "docker run".

			       You may also use "POSTGRES_HOST_AUTH_METHOD=trust" to allow all
			       connections without a password. This is *not* recommended.
		EOE
		exit 1
	fi
	if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
		echo >&2 'WARNING: POSTGRES_HOST_AUTH_METHOD is "trust": anyone who reaches the port has all rights, without a password'
	fi
}

make_cluster() {
	# initdb asks for the name of its user: lend one to a uid without an entry
	local uid wrapper
	uid=$(id -u)
	if ! getent passwd "$uid" &>/dev/null; then
		for wrapper in /usr/lib/*/libnss_wrapper.so; do
			[ -s "$wrapper" ] || continue
			NSS_WRAPPER_PASSWD=$(mktemp)
			NSS_WRAPPER_GROUP=$(mktemp)
			export LD_PRELOAD=$wrapper NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
			printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$uid" "$(id -g)" "$PGDATA" >"$NSS_WRAPPER_PASSWD"
			printf 'postgres:x:%s:\n' "$(id -g)" >"$NSS_WRAPPER_GROUP"
			break
		done
	fi
	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
		set -- --waldir "$POSTGRES_INITDB_WALDIR" "$@"
	fi
	# POSTGRES_INITDB_ARGS is a shell's words, quotes included
	eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"' "$@"'
	if [ -n "${NSS_WRAPPER_PASSWD:-}" ]; then
		rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"
		unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
	fi
}

allow_network() {
	local words=$*
	local method=$POSTGRES_HOST_AUTH_METHOD
	if [ -z "$method" ]; then
		method=$(postgres -C password_encryption $words)
	fi
	{
		printf '\n'
		if [ "$method" = trust ]; then
			printf '# trust: every connection is let in (POSTGRES_HOST_AUTH_METHOD)\n'
		fi
		printf 'host all all all %s\n' "$method"
	} >>"$PGDATA/pg_hba.conf"
}

query() {
	local words=(--no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password)
	if [ -n "$POSTGRES_DB" ]; then
		words+=(--dbname "$POSTGRES_DB")
	fi
	PGHOSTADDR= psql "${words[@]}" "$@"
}

server_up() {
	if [ "${1:-}" = postgres ]; then
		shift
	fi
	# a server for the scripts only: nobody outside can reach it, and the port is not announced
	# Sockets in a folder of their own: a health check that asks at the usual place must not take the server of
	# the set-up for the real one. Scripts find it by PGHOST.
	setup_sockets=$(mktemp -d)
	export PGHOST="$setup_sockets"
	set -- "$@" -c listen_addresses='' -c unix_socket_directories="$setup_sockets" -p "${PGPORT:-5432}"
	NOTIFY_SOCKET= PGUSER="${PGUSER:-$POSTGRES_USER}" \
		pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@")" -w start
}

server_down() {
	PGUSER="${PGUSER:-postgres}" pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGHOST
	rm -rf "$setup_sockets"
}

make_database() {
	local there
	there=$(POSTGRES_DB= query --dbname postgres --set db="$POSTGRES_DB" --tuples-only <<-'EOSQL'
		SELECT 1 FROM pg_database WHERE datname = :'db' ;
	EOSQL
	)
	if [ -z "$there" ]; then
		POSTGRES_DB= query --dbname postgres --set db="$POSTGRES_DB" <<-'EOSQL'
			CREATE DATABASE :"db" ;
		EOSQL
		printf '\n'
	fi
}

# the names that users' scripts know
docker_process_sql() { query "$@"; }

run_scripts() {
	local f
	printf '\n'
	for f; do
		case "$f" in
		*.sh)
			if [ -x "$f" ]; then
				printf '%s: running %s\n' "$0" "$f"
				"$f"
			else
				printf '%s: sourcing %s\n' "$0" "$f"
				. "$f"
			fi
			;;
		*.sql)
			printf '%s: running %s\n' "$0" "$f"
			query -f "$f"
			printf '\n'
			;;
		*.sql.gz)
			printf '%s: running %s\n' "$0" "$f"
			gunzip -c "$f" | query
			printf '\n'
			;;
		*.sql.xz)
			printf '%s: running %s\n' "$0" "$f"
			xzcat "$f" | query
			printf '\n'
			;;
		*.sql.zst)
			printf '%s: running %s\n' "$0" "$f"
			zstd -dc "$f" | query
			printf '\n'
			;;
		*) printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
		printf '\n'
	done
}

only_asks() {
	local word
	for word; do
		case "$word" in
		-'?' | --help | --describe-config | -V | --version | -C) return 0 ;;
		esac
	done
	return 1
}

main() {
	if [ "${1:0:1}" = - ]; then
		set -- postgres "$@"
	fi
	if [ "$1" = postgres ] && ! only_asks "$@"; then
		settings
		directories
		if [ "$(id -u)" = 0 ]; then
			exec gosu postgres "$BASH_SOURCE" "$@"
		fi
		if [ -z "$cluster_exists" ]; then
			require_password
			ls /docker-entrypoint-initdb.d/ >/dev/null
			make_cluster
			allow_network "${@:2}"
			export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
			server_up "$@"
			make_database
			run_scripts /docker-entrypoint-initdb.d/*
			server_down
			unset PGPASSWORD
			printf '\nPostgreSQL init process complete; ready for start up.\n\n'
		else
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		fi
	fi
	exec "$@"
}

shopt -s nullglob
main "$@"
