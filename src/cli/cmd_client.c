#include "cli/attest.h"
#include "cli/client_signer.h"

#include <string.h>

static const struct action {
    const char *name;
    int (*run)(int argc, char **argv, struct error *err);
} actions[] = {
    {"attest", client_attest},
    {"key", client_key},
    {"encrypt", client_encrypt},
    {"decrypt", client_decrypt},
    {"verify-signature", client_verify_signature},
    {"verify-tx", client_verify_tx},
};

static int run(int argc, char **argv, struct error *err)
{
    if (argc < 2)
        return cli_usage_error(&cmd_client, argv, err,
                               "say what to do: attest, key, encrypt, decrypt, verify-signature "
                               "or verify-tx");
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(argv[1], actions[i].name) == 0)
            return actions[i].run(argc - 1, argv + 1, err);
    return cli_usage_error(&cmd_client, argv, err, "%s: no such action", argv[1]);
}

/* clang-format off */
const struct subcommand cmd_client = {
    .name = "client",
    .synopsis = "attest URL | key FILE | encrypt FILE|- | decrypt FILE|- | verify-signature | verify-tx HEX|-",
    .summary = "Talk to an app in an enclave and check what it signed",
    .help =
        "Exit status: 0 done or valid, 1 rejected or failed, 2 wrong usage. What is rejected is\n"
        "said on standard error as \"rejected: reason\", and nothing is written.\n"
        "\n"
        "client attest URL (--eif FILE | --pcr N=HEX... | --any-image) [-o PEER] [DOCUMENT OPTION]...\n"
        "  Asks the Aux API or Capsule API at URL for a document with a fresh nonce, verifies it as\n"
        "  `attest verify` does, and prints the keys that the enclave attests.\n"
        "  -o, --output PEER      keep them in a peer file, which the other actions take\n"
        "      --document FILE    keep the document\n"
        HTTP_TARGET_HELP
        "\n"
        "client key FILE [--new] [--pem]\n"
        "  Prints the public half of a P-384 key in FILE as apps take it, in hex.\n"
        "      --new              make the key first: a new file that only you can read\n"
        "      --pem              print PEM instead\n"
        "\n"
        "client encrypt --peer PEER [--key FILE] [-o FILE] FILE|-\n"
        "  Encrypts up to 5242608 bytes to the enclave of PEER and prints the body for\n"
        "  POST /v1/encryption/decrypt.\n"
        "      --peer PEER        the enclave, as `client attest -o PEER` met it\n"
        "      --key FILE         be the owner of this private key, and so able to read an answer;\n"
        "                         default: a key for this message only, which nobody keeps\n"
        "  -o, --output FILE      write there instead of to standard output\n"
        "\n"
        "client decrypt --peer PEER --key FILE [--sent FILE] [-o FILE] FILE|-\n"
        "  Opens an answer of POST /v1/encryption/encrypt that is meant for the key in FILE, if the\n"
        "  enclave of PEER has sent it.\n"
        "      --peer PEER        the enclave, as `client attest -o PEER` met it\n"
        "      --key FILE         the private key that the answer is meant for\n"
        "      --sent FILE        what client encrypt made: refuse to take it for the answer\n"
        "  -o, --output FILE      write there, for you only, instead of to standard output\n"
        "\n"
        "client verify-signature --signature HEX --message TEXT SIGNER... [DOCUMENT OPTION]...\n"
        "  Checks a signature of a message (EIP-191), as /v1/eth/sign makes them.\n"
        "      --signature HEX    the signature: r, s and v\n"
        "      --message TEXT     what was signed\n"
        "      --message-file FILE\n"
        "                         the file that holds it, byte for byte, instead of --message; - is\n"
        "                         standard input\n"
        "\n"
        "client verify-tx HEX|- [--chain-id N] [--to 0x...|none] [SIGNER]... [DOCUMENT OPTION]...\n"
        "  Checks a signed EIP-1559 transaction, as /v1/eth/sign-tx makes them, and prints it as\n"
        "  JSON with its hash and sender.\n"
        "      --chain-id N       expect this chain, in decimal\n"
        "      --to 0x...|none    expect this recipient, or that a contract is created\n"
        "\n"
        "Signer options:\n"
        CLIENT_SIGNER_HELP
        ATTEST_AT_HELP
        "\n"
        "Document options, as of `attest verify`:\n"
        ATTEST_EXPECT_HELP
        CLIENT_ANY_IMAGE_HELP,
    .run = run,
};
/* clang-format on */
