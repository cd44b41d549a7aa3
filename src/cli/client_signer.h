/* Who should have signed: options and checks that client verify-signature and verify-tx share. */
#ifndef CAPSULE_CLI_CLIENT_SIGNER_H
#define CAPSULE_CLI_CLIENT_SIGNER_H

#include "cli/client.h"

struct client_signer {
    struct attest_expect expect; /* for the attestation */
    const char *attestation;
    const char *peer;
    bool app_wallet; /* of the peer, not its own key */
    bool any_image;
    bool has_address;
    uint8_t address[ETH_ADDRESS_LEN];
};

#define CLIENT_SIGNER_HELP                                                                         \
    "      --peer FILE        expect the enclave that `client attest -o FILE` met\n"               \
    "      --app-wallet       ... its app wallet instead of its own key\n"                         \
    "      --address 0x...    expect this address\n"                                               \
    "      --attestation FILE check the document that the API gave with the signature (its\n"      \
    "                         base64 or its bytes), under the document options below\n"
enum {
    CLIENT_OPTION_PEER = 0x300,
    CLIENT_OPTION_APP_WALLET,
    CLIENT_OPTION_ADDRESS,
    CLIENT_OPTION_ATTESTATION,
    CLIENT_OPTION_ANY_IMAGE,
};
/* clang-format off */
#define CLIENT_SIGNER_OPTIONS                                                                      \
    ATTEST_EXPECT_OPTIONS,                                                                         \
    ATTEST_AT_OPTION,                                                                              \
    {"peer", required_argument, NULL, CLIENT_OPTION_PEER},                                         \
    {"app-wallet", no_argument, NULL, CLIENT_OPTION_APP_WALLET},                                   \
    {"address", required_argument, NULL, CLIENT_OPTION_ADDRESS},                                   \
    {"attestation", required_argument, NULL, CLIENT_OPTION_ATTESTATION},                           \
    {"any-image", no_argument, NULL, CLIENT_OPTION_ANY_IMAGE}
/* clang-format on */
/* Returns 1 when it was one of these, 0 when it was not, or -1. `value` must outlive the signer. */
int client_signer_option(struct client_signer *signer, int option, const char *value,
                         struct error *err);
/* After all options: reads the peer file. Contradictions are ERR_USAGE. */
int client_signer_prepare(struct client_signer *signer, struct error *err);
/* Somebody is expected. */
bool client_signer_is_given(const struct client_signer *signer);

/*
 * Recovers who signed the digest: `signature` is r || s || v with v 0, 1, 27 or 28. Writes the
 * point and the address as text, ETH_ADDRESS_STRLEN bytes. Returns 0, or 1 when it was rejected.
 */
int client_signer_recover(const uint8_t *digest, const uint8_t *signature, uint8_t *point,
                          char *address);
/*
 * Compares that point with what is expected; `attested` is the digest that the attestation must
 * carry. Returns 0, 1 when it was rejected, or -1.
 */
int client_signer_check(struct client_signer *signer, const uint8_t *point, const uint8_t *attested,
                        struct error *err);

#endif
