/* The crypto library as a whole. */
#ifndef CAPSULE_CRYPTO_LIBRARY_H
#define CAPSULE_CRYPTO_LIBRARY_H

/*
 * Makes OpenSSL read no openssl.cnf (neither the default path nor OPENSSL_CONF), for the life of
 * the process; to be called before anything else of this room. In an enclave that file belongs to
 * the app's image, which may be made for another OpenSSL and has no say in our algorithms.
 */
void crypto_ignore_configuration(void);

#endif
