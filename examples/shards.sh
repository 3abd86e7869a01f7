#!/bin/sh
# Divide a fleet into four stable parts, as for four machines or four jobs of a CI system. If an install is added, the other
# installs stay in their parts. Each part has its own lock, its own report and its own --resume latest.
# The exit code is that of the first part that failed. The other parts still run.
#
#   terminal 1   wpe-backup simulate --scenario examples/scenarios/agency.yaml
#   terminal 2   WPE_BACKUP_CONFIG=examples/agency.yaml examples/shards.sh
set -u

first=0
for part in 1 2 3 4; do
    wpe-backup run --shard "$part/4"
    code=$?
    [ "$first" -ne 0 ] || first=$code
    case $code in
        129 | 130 | 143) break ;; # a signal means that somebody wants to stop
    esac
done
exit "$first"
