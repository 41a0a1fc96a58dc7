#include "hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int digest_stream(FILE *f, EVP_MD_CTX *context, char hex[GEMMA4_SHA256_SIZE])
{
    unsigned char buffer[1 << 16], digest[EVP_MAX_MD_SIZE];
    unsigned int length;
    size_t n;
    if (!EVP_DigestInit_ex(context, EVP_sha256(), NULL))
        return -1;
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
        if (!EVP_DigestUpdate(context, buffer, n))
            return -1;
    if (ferror(f) || !EVP_DigestFinal_ex(context, digest, &length))
        return -1;
    for (unsigned int i = 0; i < length; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

int gemma4_sha256_file(const char *path, char hex[GEMMA4_SHA256_SIZE], gemma4_error *error)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return gemma4_fail(error, "%s: cannot read: %s", path, strerror(errno));
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int status = context ? digest_stream(f, context, hex) : -1;
    bool reading = ferror(f); /* libcrypto refuses for want of memory only */
    EVP_MD_CTX_free(context);
    fclose(f);
    return status ? gemma4_fail(error, "%s: cannot compute its SHA-256: %s", path,
                                reading ? "it cannot be read" : "out of memory")
                  : 0;
}
