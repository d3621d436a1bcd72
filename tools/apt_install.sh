#!/bin/sh
# apt_install.sh PACKAGE REASON: installs a Debian package where this user may; else one line that says what is missing.
set -eu
package=$1
reason=$2
as_root=
if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
if command -v apt-get >/dev/null && { [ -z "$as_root" ] || sudo -n true 2>/dev/null; }; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $package"
    # A fresh container has no package lists; where there are some, they are tried first.
    if $install >"$log" 2>&1 || { $as_root apt-get update >"$log" 2>&1 && $install >"$log" 2>&1; }; then exit 0; fi
    echo "vlmmem: $reason; apt-get install $package failed: $(tail -n 1 "$log")" >&2
else
    echo "vlmmem: $reason, and this user may not install it; ask for: apt-get install $package" >&2
fi
exit 2
