#!/bin/sh
# The group and the folder of tmpfiles.d/kapo.conf; no service is started.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers kapo.conf
elif ! getent group kapo >/dev/null; then
    if command -v groupadd >/dev/null; then groupadd --system kapo; else addgroup -S kapo; fi
fi
# Without a running system (an image being built) tmpfiles.d makes the folder at the next boot.
if command -v systemd-tmpfiles >/dev/null && [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create kapo.conf
fi
