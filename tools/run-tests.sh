#!/bin/sh
# All tiers. As root they run as root; beside it, as ordinary users made for it, the tiers that need no root (one id:
# rung R3) and the scenarios (subordinate ids: rung R2). run-tests.sh PYTHON
set -eu
python=$1
unset PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED # thousands of programs are started: what is compiled once stays
if [ "$(id -u)" != 0 ] || ! command -v useradd >/dev/null; then exec "$python" -m pytest -q; fi
one=kap-one-$$ many=kap-many-$$
place=$(mktemp -d)
chmod 755 "$place"
trap 'userdel "$one" 2>/dev/null || true; userdel "$many" 2>/dev/null || true; rm -rf "$place"' EXIT INT TERM
useradd --system --home-dir "$place/$one/home" --shell /bin/sh "$one"
useradd --system --home-dir "$place/$many/home" --shell /bin/sh "$many"
for file in subuid subgid; do
	sed -i "/^$one:/d;/^$many:/d" "/etc/$file" 2>/dev/null || true
	echo "$many:1000000:65536" >>"/etc/$file"
done
trap 'for file in subuid subgid; do sed -i "/^$many:/d" "/etc/$file"; done
	userdel "$one" 2>/dev/null || true; userdel "$many" 2>/dev/null || true; rm -rf "$place"' EXIT INT TERM
# A Python that these users may run, with the package and its test libraries in an environment of its own.
interpreter=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
if ! su -s /bin/sh "$one" -c "test -x '$interpreter'"; then
	interpreter=$(command -v /usr/bin/python3)
	"$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "no Python that an ordinary user can run" >&2; exit 1; }
fi
prepare() { # prepare USER: a copy of this tree for it
	mkdir -p "$place/$1/home"
	cp -r src tests tools bench examples docs pyproject.toml README.md LICENSE "$place/$1/"
	[ -d "$place/venv" ] || sh "$(dirname "$0")/make-venv.sh" "$interpreter" "$place/venv"
	"$place/venv/bin/python" -m pip install --quiet --editable "$place/$1[test,fast,zstd]"
	"$place/venv/bin/python" -m compileall -q "$place/$1/src" || true
	echo '{}' >"$place/$1/home/auth.json" # skopeo's, which looks into root's folder without it
	chown -R "$1" "$place/$1"
}
as_user() { # as_user USER WHAT: the tests WHAT
	su -s /bin/sh "$1" -c "cd '$place/$1' && HOME='$place/$1/home' REGISTRY_AUTH_FILE='$place/$1/home/auth.json' PYTHONPATH='$place/$1/src' '$place/venv/bin/python' -m pytest -q -p no:cacheprovider $2"
}
prepare "$one"
prepare "$many"
beside() { # one after the other: more side by side, and tests wait for a processor
	echo "as an ordinary user with one id ($one):"
	as_user "$one" "-m 'not root' $of_one" && code=0 || code=1
	if command -v newuidmap >/dev/null; then
		echo "as an ordinary user with subordinate ids ($many):"
		as_user "$many" "-m 'not root' $of_many" || code=1
	else
		echo "not run: the scenarios of a user with subordinate ids (no newuidmap: apt-get install uidmap)"
	fi
	return "$code"
}
# Root runs of what is pure only what depends on who runs it; the 42 Dockerfiles and the example's agent are root's.
of_root="tests/os tests/scenarios tests/fuzz"
for name in private_places native_intake host_access standins_custom; do of_root="$of_root tests/unit/test_$name.py"; done
of_one="tests/os tests/scenarios tests/unit tests/golden tests/test_layers.py"
of_one="$of_one --ignore=tests/scenarios/test_dockerfiles.py --ignore=tests/scenarios/test_agent.py"
# With subordinate ids without what takes long and meets the same code as with one id.
of_many="tests/scenarios tests/os/test_rung.py"
for name in agent build bundle clocks dockerfiles dry_run full_disk images kill_points offline probes rotation standins together; do
	of_many="$of_many --ignore=tests/scenarios/test_$name.py"
done
if [ -n "${KAP_TEST_ALL:-}" ]; then of_many=tests/scenarios; of_one=tests of_root=tests; fi
beside >"$place/beside.log" 2>&1 &
beside=$!
failed=0
# shellcheck disable=SC2086 # several words
"$python" -m pytest -q --durations=15 $of_root || failed=1
wait "$beside" || failed=1
cat "$place/beside.log"
exit "$failed"
