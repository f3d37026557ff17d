#!/bin/sh
# Sends an alert to Alertmanager, or resolves it. It is a hook for two pairs of events:
#
#   kapo supervise --on flapping=/usr/local/lib/kapo/alertmanager.sh --on recovered=/usr/local/lib/kapo/alertmanager.sh ...
#   kapo run --on fail=/usr/local/lib/kapo/alertmanager.sh ...
#
# ALERTMANAGER is the URL, JOB the name of the job. The values of KAPO_... need no escapes in JSON.
set -eu
url=${ALERTMANAGER:-http://localhost:9093}
case $KAPO_EVENT in
    recovered) times="\"endsAt\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"," alert=flapping ;;
    *) times='' alert=$KAPO_EVENT ;;
esac
curl -fsS --max-time 8 -o /dev/null -H 'Content-Type: application/json' --data-binary @- "$url/api/v2/alerts" <<JSON
[{$times
  "labels": {"alertname": "Kapo_$alert", "job": "${JOB:-unnamed}", "host": "$(uname -n)"},
  "annotations": {"summary": "reason $KAPO_REASON, exit code $KAPO_EXIT_CODE, $KAPO_RESTARTS restarts"}}]
JSON
