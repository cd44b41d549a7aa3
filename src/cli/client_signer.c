#include "cli/client_signer.h"

#include "cli/client_peer.h"
#include "crypto/secp256k1.h"

#include <string.h>

int client_signer_option(struct client_signer *signer, int option, const char *value,
                         struct error *err)
{
    switch (option) {
    case CLIENT_OPTION_PEER:
        signer->peer = value;
        return 1;
    case CLIENT_OPTION_APP_WALLET:
        signer->app_wallet = true;
        return 1;
    case CLIENT_OPTION_ATTESTATION:
        signer->attestation = value;
        return 1;
    case CLIENT_OPTION_ANY_IMAGE:
        signer->any_image = true;
        return 1;
    case CLIENT_OPTION_ADDRESS:
        if (signer->has_address)
            return cli_usage_error(&cmd_client, NULL, err, "--address is given twice");
        signer->has_address = true;
        if (client_address("--address", slice_str(value), signer->address, err) < 0)
            return cli_usage_error(&cmd_client, NULL, err, "--address wants 0x and 40 hex digits");
        return 1;
    default:
        return attest_expect_option(&signer->expect, option, value, err);
    }
}

int client_signer_prepare(struct client_signer *signer, struct error *err)
{
    struct client_keys keys;

    if (signer->peer && signer->has_address)
        return cli_usage_error(&cmd_client, NULL, err, "give --peer or --address, not both");
    if (signer->app_wallet && (!signer->peer || signer->attestation))
        return cli_usage_error(&cmd_client, NULL, err,
                               "--app-wallet goes with --peer, and without --attestation: the API "
                               "attests no signatures of an app wallet");
    if (signer->attestation && client_require_image(&signer->expect, signer->any_image, err) < 0)
        return -1;
    if (!signer->peer)
        return 0;
    if (client_peer_load(signer->peer, &keys, err) < 0)
        return -1;
    if (signer->app_wallet && !keys.has_app_wallet)
        return error_set(err, ERR_NOT_FOUND, "client: %s attests no app wallet", signer->peer);
    memcpy(signer->address, signer->app_wallet ? keys.app_wallet : keys.eth_address,
           ETH_ADDRESS_LEN);
    signer->has_address = true;
    return 0;
}

bool client_signer_is_given(const struct client_signer *signer)
{
    return signer->has_address || signer->attestation;
}

int client_signer_recover(const uint8_t *digest, const uint8_t *signature, uint8_t *point,
                          char *address)
{
    uint8_t own[K256_SIGNATURE_LEN];
    uint8_t *parity = &own[K256_SIGNATURE_LEN - 1];

    memcpy(own, signature, sizeof(own));
    if (*parity == 27 || *parity == 28) /* as wallets write it */
        *parity = (uint8_t)(*parity - 27);
    if (*parity > 1)
        return client_rejected("the last byte of the signature is %u, not 0, 1, 27 or 28", *parity);
    if (k256_signature_is_high(own))
        return client_rejected("s of the signature is above n/2 (EIP-2): a valid one, altered");
    if (k256_recover(digest, own, point) < 0)
        return client_rejected("no key can have made this signature");
    eth_address_text(point, address);
    return 0;
}

int client_signer_check(struct client_signer *signer, const uint8_t *point, const uint8_t *attested,
                        struct error *err)
{
    char got[ETH_ADDRESS_STRLEN], want[ETH_ADDRESS_STRLEN];
    uint8_t address[ETH_ADDRESS_LEN];

    eth_address(point, address);
    if (signer->has_address && memcmp(address, signer->address, sizeof(address)) != 0) {
        eth_address_write(address, got);
        eth_address_write(signer->address, want);
        return client_rejected("signed by %s and not by %s, or over other bytes", got, want);
    }
    if (!signer->attestation)
        return 0;
    return client_check_binding(&signer->expect, signer->attestation, attested, point, err);
}
