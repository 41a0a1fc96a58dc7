/* libFuzzer's entry (clang -fsanitize=fuzzer); FUZZ_TARGET names the target. */
#include "targets.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const fuzz_target *target;
    if (!target) {
        const char *name = getenv("FUZZ_TARGET");
        target = name ? fuzz_target_named(name) : NULL;
    }
    if (!target) {
        fputs("fuzz: FUZZ_TARGET must be one of:", stderr);
        for (size_t i = 0; fuzz_target_at(i); i++)
            fprintf(stderr, " %s", fuzz_target_at(i)->name);
        fputc('\n', stderr);
        exit(2);
    }
    target->run(bytes, size);
    return 0;
}
