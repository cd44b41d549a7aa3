/*
 * Serves a state directory as capsule-cli run does, for tests/e2e/test_state_dir.py:
 *   state_driver DIR SIZE_MB [ro]
 * prints the directory to serve, waits for the end of its standard input, and releases it.
 */
#include "base/log.h"
#include "host/state_dir.h"

#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    AUTO_STATE_DIR struct state_dir *sd = NULL;
    struct error err = {0};
    char byte;

    if (argc < 3)
        return 2;
    if (state_dir_open(argv[1], true, &sd, &err) < 0 ||
        state_dir_prepare(sd, strtoull(argv[2], NULL, 10), argc > 3, &err) < 0) {
        error_print("state_driver", &err);
        return 1;
    }
    puts(state_dir_served(sd));
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    if (state_dir_release(sd, &err) < 0) {
        error_print("state_driver", &err);
        return 1;
    }
    return 0;
}
