/*
 * A server for tests: answers every connection on 127.0.0.1:8080 with `hello`, and ends with status
 * N after a request for /quit/N.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    static const char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(8080), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 64) < 0)
        return 98;
    for (;;) {
        char request[1024];
        const char *quit;
        int fd = accept(listener, NULL, NULL);
        ssize_t n = read(fd, request, sizeof(request) - 1);

        if (n <= 0) {
            close(fd);
            continue;
        }
        request[n] = '\0';
        if (write(fd, answer, sizeof(answer) - 1) < 0)
            perror("write");
        close(fd);
        quit = strstr(request, "/quit/");
        if (quit)
            return atoi(quit + strlen("/quit/"));
    }
}
