#!/bin/sh
# Prints the first supported Python: $PYTHON alone where it is set, else python3, then python3.X from the newest down.
# Exit code 2 and one line where there is none.
set -eu
cd "$(dirname "$0")/.."
# The supported versions are said once, in pyproject.toml.
range=$(sed -n 's/^requires-python = "\(.*\)"$/\1/p' pyproject.toml)
lowest=$(echo "$range" | sed -n 's/^>=3\.\([0-9]*\),<3\.[0-9]*$/\1/p')
beyond=$(echo "$range" | sed -n 's/^>=3\.[0-9]*,<3\.\([0-9]*\)$/\1/p')
candidates=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ]; then
    minor=$((beyond - 1))
    while [ "$minor" -ge "$lowest" ]; do
        candidates="$candidates python3.$minor"
        minor=$((minor - 1))
    done
fi
found=
for python in $candidates; do
    # Started, not only looked up: a version manager's shim is there even where its version is not.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    found="$found $python is $version;"
    case $version in 3.*) ;; *) continue ;; esac
    if [ "${version#3.}" -ge "$lowest" ] && [ "${version#3.}" -lt "$beyond" ]; then
        command -v "$python"
        exit 0
    fi
done
echo "vlmmem: needs Python 3.$lowest to 3.$((beyond - 1));${found:- none of $candidates starts;} name another with: make PYTHON=/path/to/python" >&2
exit 2
