#!/bin/sh
# coverage.sh BUILD OUT: runs the unit tests, which run the programs, and writes branch coverage file by file. Tests that fail are said.
build=$1 out=$2
suffix= status=0
command -v llvm-cov >/dev/null 2>&1 || suffix=-14
rm -f "$build"/*.profraw
GEMMA4_BUILD=$build LLVM_PROFILE_FILE=$(pwd)/$build/%m%c.profraw "$build/unit-tests" >"$build/unit-tests.txt" 2>&1 || status=1
[ $status -eq 0 ] || echo "coverage: tests fail: $build/unit-tests.txt" >&2
"llvm-profdata$suffix" merge -sparse -o "$build/all.profdata" "$build"/*.profraw || exit 2
"llvm-cov$suffix" export -skip-expansions -skip-functions -instr-profile="$build/all.profdata" "$build/unit-tests" -object "$build/gemma4-ref" \
    -object "$build/gemma4-check" >"$build/coverage.json" || exit 2
python3 tests/coverage.py "$build/coverage.json" "$build/uncovered.txt" >"$out" || exit 2
tail -16 "$out"
exit $status
