#!/bin/sh
# A night: back up the whole fleet, resume and retry, then audit the result and look for unprotected installs.
# Three steps have an exit code: the backups (the last retry, if there was one), the audit, and the search for unprotected
# installs. The script ends with the first code that is not 0. So 0 means that all is well.
#
#   terminal 1   wpe-backup simulate --scenario examples/scenarios/agency.yaml
#   terminal 2   WPE_BACKUP_CONFIG=examples/agency.yaml examples/nightly.sh
set -u

# Run a command and keep its exit code.
try() {
    "$@"
    code=$?
}

# Go on if only some backups failed. Otherwise end the script. After 1, 2, 4 and 12, another try does not help. 11 means that
# another run is going on. A signal means that somebody wants to stop.
end_unless_some_failed() {
    case $code in
        0 | 3 | 10) ;;
        *) exit "$code" ;;
    esac
}

try wpe-backup run --wait --deadline "${DEADLINE:-4h}" --max-failures 20% --lock-wait 30m
end_unless_some_failed
if [ "$code" -ne 0 ]; then
    try wpe-backup run --resume latest --wait # request and wait for the remaining installs
    end_unless_some_failed
fi
if [ "$code" -ne 0 ]; then
    try wpe-backup run --retry-failed latest --wait # retry failed installs and failed sources
    end_unless_some_failed
fi
backups=$code

try wpe-backup audit # check the age of each newest backup
audit=$code
try wpe-backup installs --diff # look for installs that nobody backs up

for each in "$backups" "$audit" "$code"; do
    [ "$each" -eq 0 ] || exit "$each"
done
