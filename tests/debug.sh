#!/bin/sh
# make debug-test: types README's debugger commands into gdb and lldb as they stand there, and compares what the debugger prints of a
# tensor with what gemma4-ref show prints of the golden.
build=$1
program=$build/debug/gemma4-ref
case_tokens=$("$build/gemma4-check" list tiny-prompt | sed -n 's/^tokens *//p')

# "gdb": runs its commands. The debugger's output is in $build/debug/gdb.txt.
walk() {
    command -v "$1" >/dev/null 2>&1 || { echo "tests/debug.sh: $1 is not installed: sh tests/install.sh debug" >&2; exit 1; }
    sed -n "s/^    ($1) //p" README.md | sed "s#build/#$build/#" >"$build/debug/$1.commands"
    tokens=$(sed -n "s/^    $1 -.* --tokens //p" README.md)
    [ -n "$tokens" ] && [ "$tokens" = "$case_tokens" ] || { echo "README.md: the tokens for $1 are not those of tiny-prompt" >&2; exit 1; }
    if [ "$1" = gdb ]; then
        gdb -nx -batch -x "$build/debug/gdb.commands" --args "$program" run --model golden/checkpoints/tiny --tokens "$tokens"
    else
        timeout 300 lldb --no-lldbinit --batch --source "$build/debug/lldb.commands" -- "$program" run --model golden/checkpoints/tiny --tokens "$tokens"
    fi >"$build/debug/$1.txt" 2>&1
}

# Values as a debugger prints them ("$1 = {a, b, ...}" in gdb, "(real) [0] = a" a line in lldb) and, after them, the first ones that
# gemma4-ref show prints. The last command shows where the step stands that RoPE is.
compare() {
    awk -v debugger="$1" '
        /^\$[0-9]+ = \{/ { gsub(/.*\{|\}.*|,/, " "); n = split($0, value, " ") }
        /^ *\(real\) \[[0-9]+\] = / { n = $2 == "[0]" ? 1 : n + 1; value[n] = $NF }
        /^ +0 +-?[0-9]/ && n {
            for (i = 1; i <= 6; i++) {
                difference = value[i] - $(i + 1)
                if (difference < 0) difference = -difference
                if (!(difference < 1e-4)) { print debugger " prints " value[i] ", the golden holds " $(i + 1); bad = 1 }
            }
            pairs++
            n = 0
        }
        /tap\(s, GEMMA4_TAP_ATTN_Q_ROPE, l, T, a->q\);/ { step = 1 }
        END {
            print pairs + 0 " tensors of README'"'"'s walk in " debugger " are what the golden holds"
            if (!step) print debugger " does not lead to the line of the step"
            exit bad || pairs != 2 || !step
        }
    ' "$build/debug/$1.txt" && return
    cat "$build/debug/$1.txt" >&2
    exit 1
}

for debugger in gdb lldb; do
    walk $debugger
    compare $debugger
done
