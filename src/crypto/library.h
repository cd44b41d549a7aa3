/* The crypto library as a whole. */
#ifndef CAPSULE_CRYPTO_LIBRARY_H
#define CAPSULE_CRYPTO_LIBRARY_H

#include <stdbool.h>

/*
 * Makes OpenSSL read no openssl.cnf (neither the default path nor OPENSSL_CONF), for the life of
 * the process; to be called before anything else of this room. In an enclave that file belongs to
 * the app's image, which may be made for another OpenSSL and has no say in our algorithms.
 */
void crypto_ignore_configuration(void);

/*
 * Gives the private keys of this room a place of their own, once, for the life of the process: a
 * few pages between guard pages, locked into memory as they are used, which core dumps leave out.
 * Keys made before lie elsewhere. False when the kernel refuses the lock (RLIMIT_MEMLOCK) or the
 * mark; keys are kept there nevertheless.
 */
bool crypto_guard_keys(void);

#endif
