/*
 * A non-blocking stream socket on the loop with an input and an output buffer: what libevent's
 * bufferevent is, but it reads up to 64 KiB at a time (bufferevents of libevent 2.1 read 4 KiB),
 * tells the peer's half-close apart from the end, and has one timer.
 */
#ifndef CAPSULE_VSOCK_STREAM_H
#define CAPSULE_VSOCK_STREAM_H

#include "base/slice.h"

#include <event2/buffer.h>
#include <event2/event.h>

struct stream;

/* All run from the loop and may free the stream. */
struct stream_ops {
    /* Bytes were added to the input. */
    void (*readable)(void *arg);
    /* The output was written on by the loop and holds at most STREAM_LOW bytes now. */
    void (*drained)(void *arg);
    /* sys 0: the peer has sent everything it will (writing goes on). Else the errno that broke the
       connection; nothing more happens on it. */
    void (*ended)(void *arg, int sys);
    /* The time of stream_set_timeout() is over. */
    void (*timeout)(void *arg);
};

#define STREAM_LOW  65536  /* of the output */
#define STREAM_HIGH 262144 /* users stop adding to an output that holds this much */

/* Owns `fd`, which is connected and non-blocking. Reading is off at first. The program must ignore
   SIGPIPE. */
struct stream *stream_new(struct event_base *base, int fd, const struct stream_ops *ops, void *arg);
/* Frees the buffers and closes the descriptor (unless taken). NULL is fine. */
void stream_free(struct stream *s);
/* The same, but the peer sees a reset where the protocol can say so. */
void stream_abort(struct stream *s);
/* Hands the descriptor back; the stream can only be freed afterwards. Unwritten output is lost. */
int stream_take_fd(struct stream *s);
/* From now on others handle what happens. */
void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *arg);

struct evbuffer *stream_in(struct stream *s);
struct evbuffer *stream_out(struct stream *s);
/* The first `len` input bytes in one piece (fewer when there are fewer). Borrowed until the next
   change of the input. */
struct slice stream_peek(struct stream *s, size_t len);

/* Reading goes on while it is on and the input holds less than STREAM_HIGH bytes; call it again
   after taking input. */
void stream_read(struct stream *s, bool on);
/* Writes what the socket takes now; the loop writes the rest. Errors come as ended(). */
void stream_flush(struct stream *s);
/* Appends and flushes. */
void stream_write(struct stream *s, const void *ptr, size_t len);
/* Sends the end of our direction; the output must be empty. */
void stream_shutdown(struct stream *s);
/* Calls timeout() in `ms`; 0 stops the timer. */
void stream_set_timeout(struct stream *s, int64_t ms);
/* True once the peer has ended its direction. */
bool stream_at_end(const struct stream *s);

#endif
