#!/usr/bin/env bash
# Fails when the subject of a commit message is longer than 72 characters.
#   scripts/check_subject.sh MESSAGE_FILE      one message, as git hands it to a commit-msg hook
#   scripts/check_subject.sh --since REVISION  every commit after a revision, merges excepted
set -euo pipefail

limit=72
check() {
    if [ "${#1}" -gt "$limit" ]; then
        printf 'the subject has %d characters, %d at most: %s\n' "${#1}" "$limit" "$1" >&2
        return 1
    fi
}

case ${1:-} in
--since)
    failed=0
    while IFS= read -r subject; do
        check "$subject" || failed=1
    done < <(git log --no-merges --format=%s "${2:?a revision}"..HEAD)
    exit "$failed"
    ;;
"")
    echo "usage: scripts/check_subject.sh MESSAGE_FILE | --since REVISION" >&2
    exit 2
    ;;
*)
    check "$(grep -v '^#' "$1" | head -n 1)"
    ;;
esac
