/*
 * The soft NSM on standard input, a connected socket, for tests/peers/test_aws.py.
 * Usage: nsm_on_stdin CA-DIR. Ends when the peer closes.
 */
#include "../../unit/nsm_stream.h"

int main(int argc, char **argv)
{
    struct soft_nsm_config config = {.ca_dir = argc > 1 ? argv[1] : NULL};
    struct error err;
    struct soft_nsm *soft = soft_nsm_new(&config, &err);

    if (!soft || soft_nsm_serve(soft, STDIN_FILENO, &err) < 0) {
        error_print("nsm_on_stdin", &err);
        return 1;
    }
    soft_nsm_free(soft);
    return 0;
}
