#!/bin/sh
# A night: back up the whole fleet, take up again what stopped halfway, then hold the result against what was promised.
# The exit code is that of the backups: of the last retry, where there was one. If they are all well, it is that of the
# audit, and then that of the look for installs that nobody backs up. So 0 means that all of it is well.
#
#   terminal 1   wpe-backup simulate --scenario examples/scenarios/agency.yaml
#   terminal 2   WPE_BACKUP_CONFIG=examples/agency.yaml examples/nightly.sh
set -u

# Run a command and remember its exit code, whatever that is.
try() {
    "$@"
    code=$?
}

# What some backups missed gets another chance. Anything else ends the night here: 1, 2, 4 and 12 do not mend
# themselves, 11 means that another run is at it, a signal means that somebody wants an end.
end_unless_some_failed() {
    case $code in
        0 | 3 | 10) ;;
        *) exit "$code" ;;
    esac
}

try wpe-backup run --wait --deadline "${DEADLINE:-4h}" --max-failures 20% --lock-wait 30m
end_unless_some_failed
if [ "$code" -ne 0 ]; then
    try wpe-backup run --resume latest --wait # what was not tried, or not waited for
    end_unless_some_failed
fi
if [ "$code" -ne 0 ]; then
    try wpe-backup run --retry-failed latest --wait # what failed, and what could not be read of the inventory
    end_unless_some_failed
fi
backups=$code

try wpe-backup audit # how old is the newest completed backup of every install, whoever made it?
audit=$code
try wpe-backup installs --diff # which installs does nobody back up?

for each in "$backups" "$audit" "$code"; do
    [ "$each" -eq 0 ] || exit "$each"
done
