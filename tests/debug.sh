#!/bin/sh
# make debug-test: types README's debugger commands into gdb as they stand there, and compares what gdb prints of a tensor with what
# gemma4-ref show prints of the golden.
build=$1
command -v gdb >/dev/null 2>&1 || { echo "tests/debug.sh: gdb is not installed" >&2; exit 1; }
sed -n 's/^    (gdb) //p' README.md | sed "s#build/#$build/#" >"$build/debug/commands.gdb"
tokens=$(sed -n 's/^    gdb --args .* --tokens //p' README.md)
case_tokens=$("$build/gemma4-check" list tiny-prompt | sed -n 's/^tokens *//p')
[ -n "$tokens" ] && [ "$tokens" = "$case_tokens" ] || { echo "README.md: the debugger's tokens are not those of tiny-prompt" >&2; exit 1; }
gdb -nx -batch -x "$build/debug/commands.gdb" --args "$build/debug/gemma4-ref" run --model golden/checkpoints/tiny --tokens "$tokens" \
    >"$build/debug/walk.txt" 2>&1
# Pairs of "$1 = {a, b, ...}" and, after it, the first values that gemma4-ref show prints.
awk '
    /^\$[0-9]+ = \{/ { gsub(/.*\{|\}.*|,/, " "); n = split($0, gdb, " ") }
    /^ +0 +-?[0-9]/ && n {
        for (i = 1; i <= 6; i++) {
            difference = gdb[i] - $(i + 1)
            if (difference < 0) difference = -difference
            if (!(difference < 1e-4)) { print "gdb prints " gdb[i] ", the golden holds " $(i + 1); bad = 1 }
        }
        pairs++
        n = 0
    }
    END { print pairs + 0 " tensors of README'"'"'s walk are what the golden holds"; exit bad || pairs < 2 }
' "$build/debug/walk.txt" && exit 0
cat "$build/debug/walk.txt" >&2
exit 1
