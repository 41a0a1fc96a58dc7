#!/bin/sh
# coverage_suite.sh BUILD FOLDER SUITE: one suite of the unit tests, for coverage.sh; its counters are left in FOLDER/SUITE.
mkdir -p "$2/$3"
export GEMMA4_BUILD="$1" CK_RUN_SUITE="$3" LLVM_PROFILE_FILE="$2/$3/%m%c.profraw"
# The files with the counters are there before a test lets no file grow, or fills a disk.
"$1/gemma4-ref" --version >"$2/$3/said" 2>&1 && "$1/gemma4-check" --version >>"$2/$3/said" 2>&1 && "$1/unit-tests" >>"$2/$3/said" 2>&1 && exit 0
echo "coverage: a test of $3 fails: $2/$3/said" >&2
exit 1
