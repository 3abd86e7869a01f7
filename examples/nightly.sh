#!/bin/sh
# A night: back up the whole fleet, take up again what stopped halfway, then hold the result against what was promised.
# The exit code is the run's, or 3 if the audit finds an install without a fresh backup, or an install that is in no list.
#
#   terminal 1   wpe-backup simulate --scenario examples/scenarios/agency.yaml
#   terminal 2   WPE_BACKUP_CONFIG=examples/agency.yaml examples/nightly.sh
set -u

code=0
wpe-backup run --wait --deadline "${DEADLINE:-4h}" --max-failures 20% --lock-wait 30m || code=$?

case $code in
    0) ;;
    3 | 10) # some failed, or the deadline came first: the rest gets another chance
        wpe-backup run --resume latest --wait || code=$?
        wpe-backup run --retry-failed latest --wait && code=0
        ;;
    *) exit "$code" ;; # 2 and 12 do not mend themselves, a signal means that somebody wants an end
esac

wpe-backup audit || code=$?          # how old is the newest completed backup of every install, whoever made it?
wpe-backup installs --diff || code=$? # which installs does nobody back up?
exit "$code"
