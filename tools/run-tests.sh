#!/bin/sh
# All tiers. As root they run as root first, then the tiers that need no root once more as an ordinary user made
# for it. run-tests.sh PYTHON
set -eu
python=$1
"$python" -m pytest -q
if [ "$(id -u)" != 0 ] || ! command -v useradd >/dev/null; then exit 0; fi
user=kap-tests-$$
place=$(mktemp -d)
useradd --system --home-dir "$place/home" --shell /bin/sh "$user"
trap 'userdel "$user" 2>/dev/null || true; rm -rf "$place"' EXIT INT TERM
cp -r src tests tools bench examples docs pyproject.toml README.md LICENSE "$place/"
mkdir -p "$place/home"
chown -R "$user" "$place"
chmod 755 "$place"
# A Python that this user may run, with the package and its test libraries in an environment of its own.
interpreter=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
if ! su -s /bin/sh "$user" -c "test -x '$interpreter'"; then
	interpreter=$(command -v /usr/bin/python3)
	"$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "no Python that an ordinary user can run" >&2; exit 1; }
fi
sh "$(dirname "$0")/make-venv.sh" "$interpreter" "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --editable "$place[test,fast,zstd]"
chown -R "$user" "$place"
echo "as an ordinary user ($user):"
su -s /bin/sh "$user" -c "cd '$place' && HOME='$place/home' venv/bin/python -m pytest -q -p no:cacheprovider -m 'not root' tests"
