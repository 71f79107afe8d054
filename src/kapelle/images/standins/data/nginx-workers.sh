#!/bin/sh
# worker_processes by the CPUs this container may use, if NGINX_ENTRYPOINT_WORKER_PROCESSES_AUTOTUNE asks for it.
set -e
[ -n "${NGINX_ENTRYPOINT_WORKER_PROCESSES_AUTOTUNE:-}" ] || exit 0
[ -w /etc/nginx/nginx.conf ] || exit 0
cpus=$(nproc)
if [ -r /sys/fs/cgroup/cpu.max ]; then
	read -r quota period </sys/fs/cgroup/cpu.max
	if [ "$quota" != max ]; then
		limit=$(((quota + period - 1) / period))
		[ "$limit" -lt "$cpus" ] && cpus=$limit
	fi
fi
changed=$(sed "s/^worker_processes .*/worker_processes  $cpus;/" /etc/nginx/nginx.conf)
printf '%s\n' "$changed" >/etc/nginx/nginx.conf
