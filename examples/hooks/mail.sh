#!/bin/sh
# Sends a mail with the status document:
#
#   kapo supervise --on give-up=/usr/local/lib/kapo/mail.sh ...
#
# MAILTO is the address, as in crontab(5).
set -eu
{
    printf 'To: %s\nSubject: kapo on %s: %s (%s, exit code %s)\n\n' \
        "${MAILTO:-root}" "$(uname -n)" "$KAPO_EVENT" "$KAPO_REASON" "$KAPO_EXIT_CODE"
    cat
} | "${SENDMAIL:-/usr/sbin/sendmail}" -t
