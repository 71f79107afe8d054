#!/usr/bin/env bash
# Starts the broker (or one of its tools) as the user rabbitmq; the cookie of the cluster may come from a variable.
set -euo pipefail

if [[ "${1:-}" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
	if [ "$1" = rabbitmq-server ]; then
		find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq '{}' +
	fi
	exec gosu rabbitmq "$BASH_SOURCE" "$@"
fi

# settings that the image knew once and the broker's configuration file has now
gone=()
for name in RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE RABBITMQ_MANAGEMENT_SSL_CACERTFILE \
	RABBITMQ_MANAGEMENT_SSL_CERTFILE RABBITMQ_MANAGEMENT_SSL_DEPTH RABBITMQ_MANAGEMENT_SSL_FAIL_IF_NO_PEER_CERT \
	RABBITMQ_MANAGEMENT_SSL_KEYFILE RABBITMQ_MANAGEMENT_SSL_VERIFY RABBITMQ_SSL_CACERTFILE RABBITMQ_SSL_CERTFILE \
	RABBITMQ_SSL_DEPTH RABBITMQ_SSL_FAIL_IF_NO_PEER_CERT RABBITMQ_SSL_KEYFILE RABBITMQ_SSL_VERIFY \
	RABBITMQ_VM_MEMORY_HIGH_WATERMARK; do
	if [ -n "${!name:-}" ]; then
		gone+=("$name")
	fi
done
if [ "${#gone[@]}" -gt 0 ]; then
	printf >&2 'error: %s is set but deprecated\n' "${gone[@]}"
	printf >&2 'error: deprecated environment variables detected: use a configuration file instead\n'
	exit 1
fi

cookie=/var/lib/rabbitmq/.erlang.cookie
if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ]; then
	if [ ! -e "$cookie" ]; then
		(umask 077 && printf '%s\n' "$RABBITMQ_ERLANG_COOKIE" >"$cookie")
	elif [ "$(cat "$cookie" 2>/dev/null)" != "$RABBITMQ_ERLANG_COOKIE" ]; then
		printf >&2 'warning: %s has another content than RABBITMQ_ERLANG_COOKIE\n' "$cookie"
	fi
	chmod 600 "$cookie"
fi

exec "$@"
