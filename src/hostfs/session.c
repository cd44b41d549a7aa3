#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hostfs/fs.h"
#include "hostfs/message.h"
#include "vsock/mountproto.h"

#include <errno.h>
#include <fcntl.h>

#define IN_FLIGHT                                                                                  \
    64 /* reads ahead and writes back that the enclave's kernel may have under way                 \
        */

static _Thread_local struct hostfs_request *current;

struct hostfs_request *hostfs_current(void)
{
    return current;
}

void hostfs_unpipe(const struct hostfs_request *r, uint8_t *to, size_t len)
{
    if (fd_read_full(r->pipe[0], to, len, "a pipe", NULL) < 0)
        abort(); /* it is there */
}

void reply(fuse_req_t req, int error)
{
    fuse_reply_err(req, error);
}

static void do_init(void *arg, struct fuse_conn_info *conn)
{
    const struct hostfs *fs = arg;
    unsigned int want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA |
                        FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
                        FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS;

    if (!fs->read_only)
        want |= FUSE_CAP_WRITEBACK_CACHE;
    conn->want = want & conn->capable;
    conn->max_write = MOUNT_IO_MAX;
    conn->max_background = IN_FLIGHT;
    conn->congestion_threshold = IN_FLIGHT * 3 / 4;
    conn->time_gran = 1;
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init,
    .lookup = do_lookup,
    .forget = do_forget,
    .forget_multi = do_forget_multi,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .statfs = do_statfs,
    .readlink = do_readlink,
    .mknod = do_mknod,
    .mkdir = do_mkdir,
    .symlink = do_symlink,
    .link = do_link,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .rename = do_rename,
    .open = do_open,
    .create = do_create,
    .read = do_read,
    .write = do_write,
    .release = do_release,
    .fsync = do_fsync,
    .fallocate = do_fallocate,
    .lseek = do_lseek,
    .copy_file_range = do_copy_file_range,
    .opendir = do_opendir,
    .readdir = do_readdir,
    .readdirplus = do_readdirplus,
    .releasedir = do_releasedir,
    .fsyncdir = do_fsyncdir,
    .setxattr = do_setxattr,
    .getxattr = do_getxattr,
    .listxattr = do_listxattr,
    .removexattr = do_removexattr,
};

/*
 * Without this the enclave's kernel asks for security.capability before every write(). libfuse 3.14
 * does not know the flag; what it asks of us, kill_suidgid() does.
 */
static void offer_killpriv(const struct iovec *answer)
{
    struct fuse_init_out *out = answer->iov_base;

    if (answer->iov_len >= sizeof(*out))
        out->flags |= FUSE_HANDLE_KILLPRIV_V2;
}

/* libfuse's answers: the lane is that of the request which this thread is answering. */
static ssize_t on_answer(int fd, struct iovec *iov, int count, void *arg)
{
    const struct fuse_out_header *head = iov[0].iov_base;
    ssize_t len = 0;

    (void)fd;
    (void)arg;
    if (!current || head->unique != current->unique)
        abort(); /* every request is answered by the thread that has it */
    if (current->opcode == FUSE_INIT && count == 2 && current->kill_suidgid)
        offer_killpriv(&iov[1]);
    if (current->send(current->arg, iov, count) < 0) {
        errno = ENOENT; /* which libfuse takes without a word: the lane's end is told elsewhere */
        return -1;
    }
    for (int i = 0; i < count; i++)
        len += (ssize_t)iov[i].iov_len;
    return len;
}

static ssize_t never_read(int fd, void *buf, size_t len, void *arg)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)arg;
    errno = ENODEV;
    return -1;
}

__attribute__((format(printf, 2, 0))) static void on_fuse_log(enum fuse_log_level level,
                                                              const char *format, va_list args)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct log_rate rate = {.burst = 10};
    uint64_t swallowed;
    char text[256];
    bool say;

    pthread_mutex_lock(&lock);
    say = log_rate_allow(&rate, &swallowed);
    pthread_mutex_unlock(&lock);
    if (!say)
        return;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = 0;
    if (level <= FUSE_LOG_ERR)
        log_warn("hostfs", "libfuse", kv_str("says", text), kv_uint("swallowed", swallowed));
    else
        log_debug("hostfs", "libfuse", kv_str("says", text));
}

static int open_session(struct hostfs *fs, struct error *err)
{
    static const struct fuse_custom_io io = {.writev = on_answer, .read = never_read};
    char name[] = "hostfs", *argv[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);

    fuse_set_log_func(on_fuse_log);
    fs->session = fuse_session_new(&args, &operations, sizeof(operations), fs);
    fuse_opt_free_args(&args);
    /* The descriptor is never used, but has to look like one; the session closes it. */
    if (!fs->session ||
        fuse_session_custom_io(fs->session, &io, fcntl(fs->root_fd, F_DUPFD_CLOEXEC, 0)) != 0)
        return error_set(err, ERR_INTERNAL, "libfuse refuses to serve");
    return 0;
}

struct hostfs *hostfs_new(const struct hostfs_config *config, struct error *err)
{
    struct hostfs *fs = xcalloc(1, sizeof(*fs));
    uint32_t handles = config->files_max / 4;

    fs->root_fd = config->root_fd;
    fs->read_only = config->read_only;
    fs->set_owner = config->set_owner;
    fs->handles = handle_table_new(handles);
    fs->nodes = node_table_new(config->root_fd, config->files_max - handles, err);
    if (fs->nodes && open_session(fs, err) == 0)
        return fs;
    handle_table_free(fs->handles);
    free(fs);
    return NULL;
}

void hostfs_free(struct hostfs *fs)
{
    if (!fs)
        return;
    handle_table_free(fs->handles);
    node_table_free(fs->nodes);
    fuse_session_destroy(fs->session);
    free(fs);
}

static void refuse(struct hostfs_request *request, int error)
{
    struct fuse_out_header out = {.len = sizeof(out), .error = -error, .unique = request->unique};
    const struct iovec iov = {&out, sizeof(out)};

    request->send(request->arg, &iov, 1);
}

void hostfs_answer(struct hostfs *fs, void *message, size_t len, struct hostfs_request *request)
{
    const struct message m = message_check(slice_of(message, len), fs->read_only);
    const struct fuse_buf buf = {.size = len, .mem = message};

    request->unique = m.unique;
    request->opcode = m.opcode;
    request->kill_suidgid = m.kill_suidgid;
    current = request;
    if (m.verdict == MESSAGE_GOOD)
        fuse_session_process_buf(fs->session, &buf);
    else if (m.verdict == MESSAGE_REFUSE)
        refuse(request, m.error);
    if (request->piped > 0) /* of a WRITE that failed */
        hostfs_unpipe(request, request->space, request->piped);
    request->piped = 0;
    current = NULL;
}

int hostfs_sync(struct hostfs *fs, struct error *err)
{
    AUTO_FD int fd = openat(fs->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || syncfs(fd) < 0)
        return error_sys(err, errno, "making a host mount's files durable");
    return 0;
}
