#!/bin/sh
# make check-format: is every C file as clang-format writes it (.clang-format), in lines of at most 100 columns, and do no more than six
# of our headers include each other in a row? With --write it formats them. Versions differ in small things, so one is pinned: Debian 12's, 14 (sh tests/install.sh format).
version=14
program=$(command -v clang-format-$version || command -v clang-format)
case $("$program" --version 2>/dev/null) in
*" version $version."*) ;;
*) echo "tests/format.sh: expected clang-format $version, found ${program:-none}: sh tests/install.sh format" >&2; exit 1 ;;
esac
files=$(git ls-files '*.c' '*.h')
if [ "$1" = --write ]; then
    "$program" -i $files || exit 1
else
    "$program" --dry-run -Werror $files || { echo "tests/format.sh: sh tests/format.sh --write formats them" >&2; exit 1; }
fi
# What clang-format leaves as it is: tables between "clang-format off" and "on", words that no line can hold.
if LC_ALL=C.UTF-8 grep -nE '^.{101,}' $files; then
    echo "tests/format.sh: these lines have more than 100 columns" >&2
    exit 1
fi
# How deep headers are nested below each file: the longest chain.
awk '
    { name = FILENAME; sub(".*/", "", name) }
    FNR == 1 { files[name] = FILENAME }
    /^#include "/ { split($0, part, "\""); includes[name] = includes[name] " " part[2] }
    function depth(name, list, i, n, d, most) {
        if (name in known) return known[name]
        n = split(includes[name], list, " ")
        for (i = 1; i <= n; i++)
            if ((list[i] in files) && (d = depth(list[i])) > most) most = d
        return known[name] = most + (name ~ /\.h$/)
    }
    END {
        for (name in files)
            if (depth(name) > 6) { print files[name] ": " depth(name) " headers deep; at most 6"; bad = 1 }
        exit bad
    }' $(git ls-files 'ref/*.[ch]' 'tests/check/*.[ch]')
