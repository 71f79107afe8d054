#!/bin/sh
set -e
[ -d /data ] && kind=directory
echo "starting $1 with $# words, data is a $kind"
