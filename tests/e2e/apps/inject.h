/*
 * Fixed keys and nonces for the API, for test vectors. There is no switch for them in the release
 * libraries: the linker puts the functions of inject.c in place of those that draw (--wrap), in
 * this test program and nowhere else.
 */
#ifndef CAPSULE_TESTS_INJECT_H
#define CAPSULE_TESTS_INJECT_H

#include "base/error.h"

/*
 * Reads a file of lines "eth HEX", "encryption HEX" (the private scalars) and "nonce HEX" (for the
 * next encryption; any number, used in order). What it does not name is drawn as ever. Call before
 * the API starts.
 */
int inject_read(const char *path, struct error *err);
/* Forgets and wipes it all. */
void inject_wipe(void);

#endif
