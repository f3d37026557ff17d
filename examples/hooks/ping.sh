#!/bin/sh
# Reports the end of a job to a service such as healthchecks.io, which alerts if no report arrives in time:
#
#   kapo run --on start=/usr/local/lib/kapo/ping.sh --on end=/usr/local/lib/kapo/ping.sh -- backup --all
#
# PING is the URL of the check. The report has the status document as its body.
set -eu
case $KAPO_EVENT in
    start) path=/start ;;
    *) path=/$KAPO_EXIT_CODE ;;
esac
curl -fsS --max-time 8 --retry 1 -o /dev/null --data-binary @- "$PING$path"
