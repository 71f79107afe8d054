#!/bin/sh
# A virtual environment, also where Debian's python3 came without ensurepip. make-venv.sh PYTHON FOLDER
set -eu
python=$1 folder=$2
if "$python" -m venv "$folder" >/dev/null 2>&1; then exit 0; fi
rm -rf "$folder"
if "$python" -m virtualenv "$folder" >/dev/null 2>&1; then exit 0; fi
# Without ensurepip: a bare environment, and pip from PyPI's own archive, run from the wheel.
if "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip "$folder"; then
	"$python" -m pip --python "$folder/bin/python" install --quiet pip && exit 0
fi
echo "this Python has neither ensurepip nor pip: apt-get install python3-venv (or python3-pip)" >&2
exit 1
