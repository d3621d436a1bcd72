#!/bin/sh
# Prints the path of a Chromium: $CHROMIUM, else the first on the path, else Debian's package where this user may install it.
set -eu
find_chromium() {
    for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
        command -v "$name" && return 0
    done
    return 1
}
find_chromium && exit 0
if [ -n "${CHROMIUM:-}" ]; then
    echo "vlmmem: CHROMIUM=$CHROMIUM is no program; name one that is, or leave it unset" >&2
    exit 2
fi
"$(dirname "$0")/apt_install.sh" chromium "the browser tests need a Chromium"
find_chromium
