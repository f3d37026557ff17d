#!/bin/sh
# The folder goes when it is empty. The group stays, as files may belong to it.
set -e
if [ "$1" = purge ] && [ -d /run/kapo ]; then
    rmdir --ignore-fail-on-non-empty /run/kapo
fi
