"""The package's libraries ask for glibc 2.38: for the parsing functions of C23, whose older names do the same here. With an older glibc
this marks that request as one that may fail, and compiles the functions into a library that dump.py loads first. Needs a C compiler.

    python golden/engines/llama.cpp/prepare.py          once, after pip install
"""

import importlib.util
import os
import platform
import struct
import subprocess
import sys

SHIM = r"""
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
long __isoc23_strtol(const char *s, char **end, int base) { return strtol(s, end, base); }
long long __isoc23_strtoll(const char *s, char **end, int base) { return strtoll(s, end, base); }
unsigned long __isoc23_strtoul(const char *s, char **end, int base) { return strtoul(s, end, base); }
unsigned long long __isoc23_strtoull(const char *s, char **end, int base) { return strtoull(s, end, base); }
int __isoc23_sscanf(const char *s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsscanf(s, format, arguments);
    va_end(arguments);
    return n;
}
"""
VERSION_NEEDS, WEAK = 0x6FFFFFFE, 2  # ELF: SHT_GNU_verneed, VER_FLG_WEAK


def make_weak(path, version):
    """Marks the version that an ELF file of 64 bits needs of a library as one whose absence is no error."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, _ = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    for section in (s for s in sections if s[1] == VERSION_NEEDS):
        names, need, more = sections[section[6]][4], section[4], 1
        while more:
            _, entries, _, first, more = struct.unpack_from("<HHIII", data, need)
            entry = need + first
            for _ in range(entries):
                _, flags, _, name, following = struct.unpack_from("<IHHII", data, entry)
                if data[names + name:data.index(0, names + name)] == version:
                    struct.pack_into("<H", data, entry + 4, flags | WEAK)
                entry += following
            need += more
    with open(path, "wb") as f:
        f.write(data)


def main():
    folder = os.path.dirname(importlib.util.find_spec("llama_cpp_py_sync").origin)
    if platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 38):
        return
    for name in os.listdir(folder):
        if ".so" in name and not os.path.islink(os.path.join(folder, name)):
            make_weak(os.path.join(folder, name), b"GLIBC_2.38")
    out = os.path.join(folder, "c23.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-x", "c", "-o", out, "-"], input=SHIM.encode(), check=True)
    print(f"{out}: for glibc {platform.libc_ver()[1]}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"prepare.py: {error}")
