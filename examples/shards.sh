#!/bin/sh
# Four machines, or four jobs of a CI system, share a fleet: each backs up one of four stable parts. An install stays in
# its part whatever is added elsewhere. Each part has its own lock, its own report, its own --resume latest.
# The exit code is that of the first part that was not well; the other parts run all the same.
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
        129 | 130 | 143) break ;; # a signal means that somebody wants an end
    esac
done
exit "$first"
