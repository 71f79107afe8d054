#!/bin/sh
# /etc/nginx/templates/NAME.template → /etc/nginx/conf.d/NAME, ${VARIABLES} of the environment filled in.
set -e
from=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
to=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
stream_suffix=${NGINX_ENVSUBST_STREAM_TEMPLATE_SUFFIX:-.stream-template}
stream_to=${NGINX_ENVSUBST_STREAM_OUTPUT_DIR:-/etc/nginx/stream-conf.d}

say() {
	if [ -z "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ]; then
		echo "20-envsubst-on-templates.sh: $*"
	fi
}

# only names that are set are replaced: nginx's own $variables stay
names=$(awk -v filter="${NGINX_ENVSUBST_FILTER:-}" 'BEGIN { for (name in ENVIRON) if (name ~ /^[A-Za-z_][A-Za-z0-9_]*$/ && name ~ filter) printf "${%s} ", name }')

fill() { # suffix, output folder
	find "$from" -follow -type f -name "*$1" -print | while read -r template; do
		relative=${template#"$from/"}
		output=$2/${relative%"$1"}
		mkdir -p "$(dirname "$output")"
		say "Running envsubst on $template to $output"
		envsubst "$names" <"$template" >"$output"
	done
}

[ -d "$from" ] || exit 0
if [ ! -w "$to" ]; then
	say "ERROR: $from exists, but $to is not writable"
	exit 0
fi
fill "$suffix" "$to"
if [ -n "$(find "$from" -name "*$stream_suffix" -print -quit)" ]; then
	mkdir -p "$stream_to"
	if ! grep -q 'stream-conf\.d' /etc/nginx/nginx.conf; then
		printf '\nstream {\n    include %s/*.conf;\n}\n' "$stream_to" >>/etc/nginx/nginx.conf
	fi
	fill "$stream_suffix" "$stream_to"
fi
