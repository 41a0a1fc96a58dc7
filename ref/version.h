/* Which build this is. */
#ifndef GEMMA4_VERSION_H
#define GEMMA4_VERSION_H

/* `git describe` of the sources, or "unknown". */
const char *gemma4_version(void);

#endif
