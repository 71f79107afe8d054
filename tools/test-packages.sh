#!/bin/sh
# Programs that some tests need: a registry, a tool to fill it, a static shell. Installed as root on Debian and
# Ubuntu; elsewhere the tests that need them say so and are skipped.
set -eu
missing=""
for pair in docker-registry:docker-registry skopeo:skopeo busybox:busybox-static newuidmap:uidmap \
	fuse-overlayfs:fuse-overlayfs; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
	echo "not installed (some tests will be skipped):$missing" >&2
fi
