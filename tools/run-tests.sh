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
cp -r src tests tools bench examples pyproject.toml README.md LICENSE "$place/"
mkdir -p "$place/home"
chown -R "$user" "$place"
chmod 755 "$place"
# The same interpreter and libraries, but none of root's files: what can't be read is installed again.
interpreter=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
if ! su -s /bin/sh "$user" -c "test -x '$interpreter'"; then
	interpreter=$(command -v /usr/bin/python3)
	"$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "no Python that an ordinary user can run" >&2; exit 1; }
	sh "$(dirname "$0")/make-venv.sh" "$interpreter" "$place/venv"
	"$place/venv/bin/python" -m pip install --quiet pytest hypothesis dnspython PyYAML urllib3 rich
	site=""
	interpreter="$place/venv/bin/python"
else
	cp -r "$site" "$place/site"
	site="$place/site"
fi
chown -R "$user" "$place"
echo "as an ordinary user ($user):"
su -s /bin/sh "$user" -c "cd '$place' && HOME='$place/home' PYTHONPATH='$place/src:$site' PYTHONDONTWRITEBYTECODE=1 '$interpreter' -m pytest -q -p no:cacheprovider -m 'not root' tests"
