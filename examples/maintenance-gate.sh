#!/bin/sh
# A deployment that depends on its backups: nothing is touched unless every install that it names has a completed backup
# of the last hour. What has one is not requested again, what is under way is waited for, an aborted one is requested
# once more (wait.retry_aborted). Rehearse it against the stand-in:
#
#   terminal 1   wpe-backup simulate --scenario examples/scenarios/agency.yaml
#   terminal 2   WPE_BACKUP_CONFIG=examples/agency.yaml examples/maintenance-gate.sh torquemag torqueshop
set -eu

if [ $# -eq 0 ]; then
    echo "usage: $0 INSTALL..." >&2
    exit 2
fi

if wpe-backup run --wait --skip-if-recent 1h --description "Before the deployment of {date} {time}" -- "$@"; then
    echo "Every install is backed up: deploying."
    # ./deploy.sh "$@"     # the exit code is then that of the deployment
else
    code=$?
    echo "Not deploying: the backups ended with exit code $code." >&2
    exit "$code"
fi
