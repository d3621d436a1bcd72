#!/bin/sh
# install.sh FOLDER: brings the virtual environment there to exactly what requirements.txt locks, hashes checked.
set -eu
python=$1/bin/python
cd "$(dirname "$0")/.."
# uv takes a third of pip's time, and comes from the lock too.
uv_only=$(mktemp)
trap 'rm -f "$uv_only"' EXIT
sed -n '/^uv==/,/^    #/p' requirements.txt >"$uv_only"
"$python" -m pip install --quiet --require-hashes --no-deps -r "$uv_only"
if ! "$1/bin/uv" pip sync --quiet --python "$python" --require-hashes --compile-bytecode requirements.txt; then
    # pip knows of mirrors and certificates in its own configuration, of which uv does not.
    echo "vlmmem: uv could not install the lock; pip tries" >&2
    "$python" -m pip install --quiet --require-hashes --no-deps -r requirements.txt
fi
