#!/bin/sh
# venv.sh FOLDER: makes a virtual environment there with the first supported Python.
set -eu
folder=$1
here=$(dirname "$0")
python=$("$here/python.sh")
# Debian splits ensurepip off into a package of its own, one for each Python version.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    "$here/apt_install.sh" "$package" "$python has no venv or ensurepip"
fi
"$python" -m venv --clear "$folder"
