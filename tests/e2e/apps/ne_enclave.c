/* The enclave's behaviour towards its launcher, over UNIX sockets that stand for vsock. */
#include "ne_supervisor.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEARTBEAT_PORT 9000u
#define HEARTBEAT      0xb7

unsigned int enclave_address(struct sockaddr_un *sa, unsigned int port)
{
    static pid_t supervisor;
    int n;

    if (!supervisor)
        supervisor = getpid();
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    n = snprintf(sa->sun_path + 1, sizeof(sa->sun_path) - 1, "ne-%d-%u", (int)supervisor, port);
    return (unsigned int)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* Sends a byte to the heartbeat's port; what came back, or -1 when it hung up. */
static int beat(uint8_t byte)
{
    struct sockaddr_un sa;
    socklen_t len = enclave_address(&sa, HEARTBEAT_PORT);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), answer = -1;
    uint8_t got;

    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, len) == 0 && write(fd, &byte, 1) == 1 &&
        read(fd, &got, 1) == 1)
        answer = got;
    close(fd);
    return answer;
}

static void write_console(int listener)
{
    static const char text[] = "hello from the console\r\nand more\n";
    int fd = accept(listener, NULL, NULL);

    (void)!write(fd, text, sizeof(text) - 1);
    close(fd);
}

void enclave_run(int hold, int console_listener)
{
    struct pollfd closed = {.fd = hold};

    if (opt.debug)
        write_console(console_listener);
    if (strcmp(opt.beat, "dead") == 0)
        _exit(0);
    if (strcmp(opt.beat, "stranger") == 0)
        say("stranger: %s", beat(HEARTBEAT) < 0 ? "sent away" : "answered");
    if (strcmp(opt.beat, "wrong") == 0)
        say("wrong byte: %s", beat(0x42) < 0 ? "sent away" : "answered");
    if (strcmp(opt.beat, "none") != 0)
        say("heartbeat: %s", beat(HEARTBEAT) == HEARTBEAT ? "answered" : "not answered");
    if (strcmp(opt.beat, "late") == 0)
        _exit(0);
    while (poll(&closed, 1, -1) <= 0 || !(closed.revents & POLLERR))
        continue;
    say("enclave ended by its launcher");
    _exit(0);
}
