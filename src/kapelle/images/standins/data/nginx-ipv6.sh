#!/bin/sh
# Listens on IPv6 too, if the machine has it and default.conf is still the image's own.
set -e
conf=/etc/nginx/conf.d/default.conf
[ -f /proc/net/if_inet6 ] && [ -f "$conf" ] && [ -w "$conf" ] || exit 0
grep -q 'listen  *\[::\]:80;' "$conf" && exit 0
cmp -s "$conf" /usr/share/nginx/default.conf.image || exit 0
changed=$(sed 's/^\( *\)listen  *80;/&\n\1listen  [::]:80;/' "$conf")
printf '%s\n' "$changed" >"$conf"
