#include "version.h"

/* The Makefile defines it for this file alone: a commit rebuilds nothing else. */
#ifndef GEMMA4_VERSION
#define GEMMA4_VERSION "unknown"
#endif

const char *gemma4_version(void)
{
    return GEMMA4_VERSION;
}
