#!/bin/sh
# make debug-test: types the debugger commands of README.md and spec/walkthrough.md into gdb and lldb as they stand there, and compares what
# the debugger prints of a tensor with what gemma4-ref show prints of the golden. Then what the pages do not show of ref/gdb/gemma4.py: that
# compare sees a fault, and that wrong commands are refused in one line.
build=$1
program=$build/debug/gemma4-ref

fail() {
    echo "tests/debug.sh: $1" >&2
    [ -z "$2" ] || cat "$2" >&2
    exit 1
}

# What follows "(gdb) " or "(lldb) " on a page, and how it starts the debugger: "-x ref/gdb/gemma4.py build/debug/gemma4-ref".
commands() {
    sed -n "s/^    ($1) //p" "${2:-README.md}" | sed "s#build/#$build/#"
}
start() {
    sed -n "s/^    $1 -/-/p" "${2:-README.md}" | sed "s#build/#$build/#"
}

# Values as gdb's command tensor and gemma4-ref show print them alike, or as lldb does ("(real) [0] = a" a line): each tensor of the walk
# with what the golden holds of it.
same_values() {
    awk -v name="$3" '
        function number(text) { return text ~ /^-?[0-9.]+(e[-+]?[0-9]+)?$/ }
        FNR == 1 { file++ }
        /^ *\(real\) \[[0-9]+\] = / && file == 1 { value[++n] = $NF; next }
        /^ +[0-9]+ +-?[0-9]/ && number($2) { for (i = 2; i <= NF; i++) if (file == 1) value[++n] = $i; else golden[++m] = $i }
        END {
            for (i = 1; i <= n; i++) {
                difference = value[i] - golden[i]
                if (difference < 0) difference = -difference
                if (!(difference < 1e-4)) { print name " prints " value[i] ", the golden holds " golden[i]; bad = 1 }
            }
            print n " values of the walk in " name " are what the golden holds"
            exit bad || n == 0 || n != m
        }
    ' "$1" "$2" || fail "$3: other values than the golden's" "$1"
}

command -v gdb >/dev/null 2>&1 || fail "gdb is not installed: sh tests/install.sh debug"
command -v lldb >/dev/null 2>&1 || fail "lldb is not installed: sh tests/install.sh debug"

# --- gdb, with its script ---

out=$build/debug/gdb.txt
commands gdb >"$build/debug/gdb.commands"
[ -n "$(start gdb)" ] || fail "README.md does not say how gdb is started"
gdb -nx -batch $(start gdb) -x "$build/debug/gdb.commands" >"$out" 2>&1 || fail "gdb: a command of README.md fails" "$out"
for tap in q_norm q_rope; do
    "$program" show tiny-prompt layers.5.attn.$tap --position 3 --head 1
done >"$build/debug/golden.txt"
same_values "$out" "$build/debug/golden.txt" gdb
[ "$(grep -c '^layers\.5\.attn\.q_[a-z]*: 1536 values of 12 positions beside tiny-prompt.s golden$' "$out")" = 2 ] &&
    [ "$(grep -c '^relative RMS [0-9.e-]*: agrees' "$out")" = 2 ] || fail "gdb: two tensors should agree with the golden" "$out"
grep -q '^[0-9]*.    tap(s, GEMMA4_TAP_ATTN_Q_ROPE, l, T, a->q);' "$out" || fail "gdb does not lead to the line of the step" "$out"
# README quotes one of its answers.
grep '^layers\.5\.attn\.q_rope: ' -A 2 "$out" | while read -r line; do
    grep -qxF "    $line" README.md || fail "README.md does not hold the line that gdb prints: $line"
done || exit 1

page=spec/walkthrough.md
commands gdb $page >"$build/debug/gdb.commands"
gdb -nx -batch $(start gdb $page) -x "$build/debug/gdb.commands" >"$out" 2>&1 || fail "gdb: a command of $page fails" "$out"
"$program" show tiny-window-plus-one layers.0.attn.q_norm --position 16 --head 2 >"$build/debug/golden.txt"
same_values "$out" "$build/debug/golden.txt" "gdb, $page"
grep -q '^relative RMS [0-9.e-]*: agrees' "$out" || fail "gdb: the tensor of $page should agree with the golden" "$out"

# Runs what stands on stdin, then expects a line.
expect() {
    cat >"$build/debug/more.commands"
    gdb -nx -batch $(start gdb) -x "$build/debug/more.commands" >"$build/debug/more.txt" 2>&1
    grep -qx "$1" "$build/debug/more.txt" || fail "gdb: expected the line \"$1\"" "$build/debug/more.txt"
}

# A value that is changed is seen at once, at its place, and in what is computed from it; a change of ids too.
fault='case tiny-chunks\ntap layers.11.attn.q_rope\nrun\nset variable a->q[6 * 128 + 2 * 32 + 9] += 1\ncompare\nnext-tap 4\ncompare\n'
printf "$fault" | expect 'largest difference 1 at position 6, head 2, lane 9: here .*, golden .*'
[ "$(grep -c '^relative RMS [0-9.e-]*: DIFFERS (limit 1e-05)$' "$build/debug/more.txt")" = 2 ] ||
    fail "gdb: both should differ" "$build/debug/more.txt"
fault='case tiny-one-token\ntap router.topk_ids 0\nrun\nset variable a->expert_ids[1] = 0\ncompare\n'
printf "$fault" | expect '.*: DIFFERS (ids are equal or wrong)'
# Chunk after chunk, scores a position at a time, ids, positions that are far.
printf 'case tiny-window-plus-one\ntap attn.scores 5\nrun\ncontinue\ncompare\n' |
    expect 'layers.5.attn.scores: 12 values of 2 positions beside .*'
printf 'case tiny-chunks\ntap output 11\nrun\ncontinue 2\ncompare\n' | expect 'layers.11.output: 448 values of 7 positions beside .*'
printf 'case tiny-far\ntap router.topk_ids 11\nrun\ncompare\n' | expect 'relative RMS 0: agrees (ids are equal or wrong)'
printf 'case tiny-prompt\ntap logits\nrun\ncompare embed\n' | expect 'relative RMS [0-9.e-]*: agrees (limit 1e-05)'
# Refused, each in one line that names the command. After -ex, unlike in a file, gdb goes on with the next one.
cat >"$build/debug/refused" <<'END'
tap qrope|tap: expected a tap's name (spec/taps.md), found 'qrope': is attn.q_rope meant?
tap logits 3|tap: expected logits, which is in no layer, found 'logits 3'
case no-such|case: expected the id of a case (build/gemma4-check list), found 'no-such'
tensor attn.q|tensor: attn.q is not reached yet
tensor nothing|tensor: nothing is no tap (spec/taps.md)
tensor --position 12|tensor: --position: expected one of those reached, 0 ... 11, found 12
tensor --head 0|tensor: --head: expected a tap with heads, found 0 of embed
tensor --lane 0|tensor: expected --position or --head, found '--lane'
compare --position x|compare: --position: expected a number, found 'x'
next-tap 0|next-tap: expected a number of steps, found '0'
END
set -- -ex 'case tiny-prompt' -ex 'tap embed' -ex run
while IFS='|' read -r command message; do
    set -- "$@" -ex "$command"
done <"$build/debug/refused"
gdb -nx -batch $(start gdb) "$@" >"$build/debug/more.txt" 2>&1
while IFS='|' read -r command message; do
    grep -qxF "$message" "$build/debug/more.txt" || fail "gdb: $command: expected the line \"$message\"" "$build/debug/more.txt"
done <"$build/debug/refused"
echo "compare sees faults, and wrong commands are refused"

# --- lldb, without one ---

out=$build/debug/lldb.txt
tokens=$(start lldb | sed -n 's/.* --tokens //p')
[ -n "$tokens" ] && [ "$tokens" = "$("$build/gemma4-check" list tiny-prompt | sed -n 's/^tokens *//p')" ] ||
    fail "README.md: the tokens for lldb are not those of tiny-prompt"
commands lldb >"$build/debug/lldb.commands"
timeout 300 lldb --no-lldbinit --batch --source "$build/debug/lldb.commands" $(start lldb) >"$out" 2>&1
grep '^ *(real) \[' "$out" >"$build/debug/lldb.values"
for tap in q_norm q_rope; do
    "$program" show tiny-prompt layers.5.attn.$tap --position 3 --head 1 | awk '/^ +0 / { print } /^ +6 / { print " " $1, $2, $3 }'
done >"$build/debug/golden.txt"
same_values "$build/debug/lldb.values" "$build/debug/golden.txt" lldb
grep -q 'tap(s, GEMMA4_TAP_ATTN_Q_ROPE, l, T, a->q);' "$out" || fail "lldb does not lead to the line of the step" "$out"
