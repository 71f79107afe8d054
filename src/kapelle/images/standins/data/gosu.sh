#!/bin/sh
# gosu USER[:GROUP] COMMAND…: run a command as another user, in the same process
set -eu
if [ $# -lt 2 ]; then
	echo "Usage: gosu user-spec command [args]" >&2
	exit 1
fi
spec=$1
shift
user=${spec%%:*}
case "$spec" in
*:*) group=${spec#*:} ;;
*) group= ;;
esac
home=$(getent passwd "$user" | cut -d: -f6) || home=
HOME=${home:-/}
export HOME
if [ -n "$group" ]; then
	exec setpriv --reuid "$user" --regid "$group" --clear-groups -- "$@"
elif getent passwd "$user" >/dev/null; then
	exec setpriv --reuid "$user" --regid "$(getent passwd "$user" | cut -d: -f4)" --init-groups -- "$@"
else
	exec setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
fi
