#include "enclave/descendants.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>

#define TREE_MAX 4096 /* processes signalled in one go; what is left gets the next one */

struct tree {
    pid_t *pids;
    size_t count;
};

/* One line of pids, separated by spaces. */
static void add_line(struct tree *t, const char *p)
{
    while (*p && t->count < TREE_MAX) {
        char *end;
        long child = strtol(p, &end, 10);

        if (end == p)
            break;
        if (child > 1)
            t->pids[t->count++] = (pid_t)child;
        p = end + (*end == ' ');
    }
}

/* Appends the children of a process: those of each of its threads, as /proc has them. */
static void add_children(struct tree *t, pid_t pid)
{
    AUTO_FREE char *tasks = xasprintf("/proc/%d/task", (int)pid);
    DIR *dir = opendir(tasks);
    const struct dirent *task;

    while (dir && (task = readdir(dir))) {
        AUTO_FREE char *path = xasprintf("%s/%s/children", tasks, task->d_name);
        AUTO_BUF struct buf text = BUF(1 << 16);

        if (task->d_name[0] != '.' && file_read(path, &text, NULL) == 0)
            add_line(t, buf_cstr(&text)); /* else it has ended meanwhile */
    }
    if (dir)
        closedir(dir);
}

void descendants_signal(bool everybody, pid_t group, int sig)
{
    AUTO_FREE pid_t *pids = NULL;
    struct tree t = {0};

    if (everybody) {
        kill(-1, sig);
        return;
    }
    if (group > 0)
        kill(-group, sig);
    t.pids = pids = xcalloc(TREE_MAX, sizeof(*pids));
    add_children(&t, getpid());
    for (size_t i = 0; i < t.count; i++)
        add_children(&t, t.pids[i]);
    for (size_t i = 0; i < t.count; i++)
        kill(t.pids[i], sig);
}
