#!/bin/sh
# The archive for AArch64: its Debian libraries are unpacked into BUILD/root (nothing is installed), the programs cross-compiled against them, and the archive tried
# in an empty root under qemu-user. Needs what install.sh neon installs, and qemu-user-static for the trial. Usage: dist_arm64.sh BUILD
build=$1
packages="libhdf5-dev libhdf5-103-1 libyaml-dev libssl-dev libaec-dev zlib1g-dev"
mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial" "$build/root" || exit 1
touch "$build/apt/status"
here=$(cd "$build" && pwd)
# An apt of its own, which knows AArch64 only and changes nothing of this machine's.
apt() {
    apt-get -q -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$here/apt/lists" -o Dir::State::status="$here/apt/status" \
        -o Dir::Cache::Archives="$here/apt/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}
if [ ! -e "$build/root/unpacked" ]; then
    apt update || { echo "dist-arm64: apt-get cannot fetch the lists for AArch64"; exit 1; }
    (cd "$here/apt" && apt download $packages) || { echo "dist-arm64: apt-get cannot fetch: $packages"; exit 1; }
    for package in "$here"/apt/*.deb; do
        dpkg-deb -x "$package" "$here/root" || exit 1
    done
    touch "$build/root/unpacked"
fi
lib=$here/root/usr/lib/aarch64-linux-gnu
# -O2: gcc 12 for AArch64 crashes at -O3.
headers=$here/root/usr/include
make BUILD="$build" CC="aarch64-linux-gnu-gcc -I$headers -I$headers/aarch64-linux-gnu -I$headers/hdf5/serial" STRIP=aarch64-linux-gnu-strip \
    CFLAGS="-O2 -g" PACKAGES= STATIC_LIBS="-L$lib/hdf5/serial -L$lib -lhdf5 -lsz -laec -lz -lyaml -lcrypto -lpthread -ldl -lm" dist
