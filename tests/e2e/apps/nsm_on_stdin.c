/*
 * The soft NSM on standard input, a connected socket, for tests/peers/test_aws.py and
 * tests/standins/nitro-cli. Usage: nsm_on_stdin [CA-DIR|- [PCR0 PCR1 PCR2]], - being the default
 * directory and the PCRs hex. Ends when the peer closes.
 */
#include "../../unit/nsm_stream.h"
#include "base/text.h"

static int take_pcrs(char **hex, struct soft_nsm_config *config, struct error *err)
{
    uint8_t *const to[] = {config->pcr0, config->pcr1, config->pcr2};

    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        if (!hex[i] || hex_decode(slice_str(hex[i]), to[i], NSM_PCR_LEN) < 0)
            return error_set(err, ERR_USAGE, "PCR%zu is no measurement in hex", i);
    return 0;
}

int main(int argc, char **argv)
{
    struct soft_nsm_config config = {0};
    struct soft_nsm *soft;
    struct error err;

    if (argc > 1 && strcmp(argv[1], "-") != 0)
        config.ca_dir = argv[1];
    if (argc > 2 && take_pcrs(argv + 2, &config, &err) < 0) {
        error_print("nsm_on_stdin", &err);
        return 2;
    }
    soft = soft_nsm_new(&config, &err);
    if (!soft || soft_nsm_serve(soft, STDIN_FILENO, &err) < 0) {
        error_print("nsm_on_stdin", &err);
        return 1;
    }
    soft_nsm_free(soft);
    return 0;
}
