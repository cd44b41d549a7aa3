/* What the files of this room share about a served directory. */
#ifndef CAPSULE_HOSTFS_FS_H
#define CAPSULE_HOSTFS_FS_H

#define FUSE_USE_VERSION 314

#include "hostfs/handle.h"
#include "hostfs/node.h"
#include "hostfs/session.h"

#include <fuse_lowlevel.h>
#include <stdio.h>

/*
 * How long the enclave's kernel may believe what it was told. Of a file that is in its write-back
 * cache it believes its own size and times for ever, so more caution here would gain little.
 */
#define VALID_SECS        60.0
#define VALID_ABSENT_SECS 1.0
/* When the enclave cannot write, changes are made here and should show there. */
#define VALID_READ_ONLY_SECS 1.0

struct hostfs {
    struct node_table *nodes;
    struct handle_table *handles;
    struct fuse_session *session;
    int root_fd; /* the root node's */
    bool read_only, set_owner;
};

/* The request that this thread is answering. */
struct hostfs_request *hostfs_current(void);
/* Takes `len` bytes, which must be there, back out of the request's pipe. */
void hostfs_unpipe(const struct hostfs_request *r, uint8_t *to, size_t len);

/* Not after the answer, which frees the request. */
static inline struct hostfs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline double valid_secs(const struct hostfs *fs)
{
    return fs->read_only ? VALID_READ_ONLY_SECS : VALID_SECS;
}

/* The name of a descriptor in the working directory, which is /proc/self/fd. */
struct fd_name {
    char text[12];
};
static inline struct fd_name fd_name(int fd)
{
    struct fd_name name;

    snprintf(name.text, sizeof(name.text), "%d", fd);
    return name;
}

/* Whether an entry of a directory is not for the enclave. attributes.c */
bool is_hidden(const struct hostfs *fs, const struct node *parent, const char *name);
/* Replies with `error`, an errno, 0 for success. */
void reply(fuse_req_t req, int error);
/*
 * Looks a name up in a directory and counts the look-up. 0 with *entry filled, or an errno.
 * attributes.c
 */
int look_up(struct hostfs *fs, const struct node *parent, const char *name,
            struct fuse_entry_param *entry);
/* The same for a file behind a descriptor. */
int look_up_fd(struct hostfs *fs, int fd, struct fuse_entry_param *entry);
/* From here on this thread makes files for the caller of a request. 0 or an errno. names.c */
int act_as_caller(fuse_req_t req);
/* The directory in which a request changes `name`, or NULL after an answer. names.c */
struct node *get_dir(fuse_req_t req, fuse_ino_t id, const char *name);
/* Answer a request for an open file or directory. files.c */
void release_handle(fuse_req_t req, const struct fuse_file_info *fi, enum handle_kind kind);
void sync_handle(fuse_req_t req, const struct fuse_file_info *fi, enum handle_kind kind,
                 int data_only);
/* Takes set-id bits away when the request asks for that. 0 or an errno. */
int kill_suidgid(int fd);

/* One function an operation; fuse_lowlevel.h says what each does. */
void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                struct fuse_file_info *fi);
void do_statfs(fuse_req_t req, fuse_ino_t ino);

void do_readlink(fuse_req_t req, fuse_ino_t ino);
void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
               const char *to_name, unsigned int flags);

void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);
void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void do_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
              struct fuse_file_info *fi);
void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi);
void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void do_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset,
                        struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_offset,
                        struct fuse_file_info *to_fi, size_t len, int flags);

void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                struct fuse_file_info *fi);
void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi);
void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags);
void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
