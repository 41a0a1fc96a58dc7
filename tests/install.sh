#!/bin/sh
# Installs what building and testing need and this machine lacks. Debian and Ubuntu; elsewhere it says what to install.
# Does nothing, and needs no rights, where everything is there. With a word, also what one target needs: neon (`make check-neon`), format
# (`make check-format`), debug (`make debug-test`), fuzz (`make fuzz`, `make check-memory`), threads (`make check-threads`), coverage, python
# (`make check-engines`).
missing=
if [ "$1" = format ]; then
    command -v clang-format-14 >/dev/null 2>&1 || missing="$missing clang-format-14"
fi
if [ "$1" = debug ]; then
    command -v gdb >/dev/null 2>&1 || missing="$missing gdb"
    command -v lldb >/dev/null 2>&1 || missing="$missing lldb"
fi
if [ "$1" = neon ]; then
    command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || missing="$missing gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    command -v qemu-aarch64 >/dev/null 2>&1 || missing="$missing qemu-user"
    command -v qemu-aarch64-static >/dev/null 2>&1 || missing="$missing qemu-user-static"
fi
if [ "$1" = fuzz ]; then
    echo 'int main(void) { return 0; }' | clang -fsanitize=fuzzer-no-link,address -x c -o /dev/null - 2>/dev/null || missing="$missing clang libclang-rt-14-dev"
fi
if [ "$1" = python ]; then
    command -v python3 >/dev/null 2>&1 || missing="$missing python3"
fi
if [ "$1" = threads ]; then
    echo 'int main(void) { return 0; }' | clang -fopenmp -fsanitize=thread -x c -o /dev/null - 2>/dev/null || missing="$missing clang libclang-rt-14-dev libomp-14-dev"
fi
if [ "$1" = coverage ]; then
    command -v llvm-cov >/dev/null 2>&1 || missing="$missing clang llvm libclang-rt-14-dev"
fi
command -v make >/dev/null 2>&1 || missing="$missing make"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v xmllint >/dev/null 2>&1 || missing="$missing libxml2-utils"
if command -v pkg-config >/dev/null 2>&1; then
    pkg-config --exists hdf5 || missing="$missing libhdf5-dev"
    pkg-config --exists yaml-0.1 || missing="$missing libyaml-dev"
    pkg-config --exists libcrypto || missing="$missing libssl-dev"
    pkg-config --exists zlib || missing="$missing zlib1g-dev"
    pkg-config --exists check || missing="$missing check"
else
    missing="$missing pkg-config libhdf5-dev libyaml-dev libssl-dev zlib1g-dev check"
fi
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "tests/install.sh: no apt-get here; install the equivalents of:$missing" >&2
    exit 1
fi
echo "tests/install.sh: installing$missing"
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
$as_root apt-get update -q -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -q -y --no-install-recommends $missing
