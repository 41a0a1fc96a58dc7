#!/bin/sh
# both_ways_check.sh ARGUMENTS ... DUMP --json FILE: in gemma4-check's place. Runs $BOTH_WAYS_CHECK with these arguments, first on the fastest
# operators of this machine, then with each word of $BOTH_WAYS_CPUS as GEMMA4_CPU. What is printed, the JSON file and the status must be the same,
# to the byte: then it prints and leaves them, with that status. Else all of them, and the dump, stay in $BOTH_WAYS_OUT/differs-*, and its status
# is 3. Appends a line to $BOTH_WAYS_OUT/log: "same STATUS", or "differs", where, and the arguments.
set -u
work=$(mktemp -d "$BOTH_WAYS_OUT/differs-XXXXXX") || exit 2
dump='' json='' report=''
for word in "$@"; do # in the end: the last three
    dump=$json json=$report report=$word
done
[ "$json" = --json ] || { echo "both_ways_check: expected DUMP --json FILE at the end, found $*" >&2; exit 2; }
differs=
for cpu in auto $BOTH_WAYS_CPUS; do
    mkdir "$work/$cpu"
    rm -f "$report"
    GEMMA4_CPU=$cpu "$BOTH_WAYS_CHECK" "$@" >"$work/$cpu/text" 2>"$work/$cpu/err"
    echo $? >"$work/$cpu/status"
    [ ! -e "$report" ] || mv "$report" "$work/$cpu/json"
    diff -r "$work/auto" "$work/$cpu" >/dev/null || differs="$differs $cpu"
done
status=$(cat "$work/auto/status")
if [ -n "$differs" ]; then
    cp "$dump" "$work/dump"
    echo "differs$differs: $work: $*" >>"$BOTH_WAYS_OUT/log"
    echo "the reports differ: $work" >&2
    exit 3
fi
cat "$work/auto/text"
cat "$work/auto/err" >&2
[ ! -e "$work/auto/json" ] || mv "$work/auto/json" "$report"
rm -rf "$work"
echo "same $status" >>"$BOTH_WAYS_OUT/log"
exit "$status"
