#!/bin/sh
# Deploy only if each named install has a completed backup that is younger than an hour. The run skips installs with such
# a backup, waits for backups under way, and requests an aborted backup once more (wait.retry_aborted).
# Rehearse it against the stand-in:
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
    # ./deploy.sh "$@"     # then the exit code is that of the deployment
else
    code=$?
    echo "Not deploying: the backups ended with exit code $code." >&2
    exit "$code"
fi
