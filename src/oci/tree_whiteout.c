#include "oci/tree_priv.h"

#include <sys/stat.h>

static void collect(struct tree *t, uint32_t dir, struct ids *out)
{
    AUTO_IDS struct ids stack = {0};
    uint32_t root = inode_of(t, dir)->dir.root;

    if (root)
        ids_push(&stack, root);
    while (stack.len) {
        uint32_t d = stack.ptr[--stack.len];
        const struct dentry *e = dentry_at(t, d);

        tree_tick(t);
        ids_push(out, d);
        if (e->left)
            ids_push(&stack, e->left);
        if (e->right)
            ids_push(&stack, e->right);
    }
}

/* Takes one name out of its directory, with everything below it. */
static void remove_entry(struct tree *t, uint32_t d)
{
    AUTO_IDS struct ids todo = {0};

    tree_detach(t, dentry_at(t, d)->parent, d);
    ids_push(&todo, d);
    while (todo.len) {
        struct dentry *e = dentry_at(t, todo.ptr[--todo.len]);
        struct inode *n = inode_at(t, e->inode);

        tree_tick(t);
        n->nlink--;
        e->flags |= DENTRY_DEAD;
        if (e->left)
            ids_push(&todo, e->left);
        if (e->right)
            ids_push(&todo, e->right);
        if (S_ISDIR(n->mode) && n->dir.root) {
            ids_push(&todo, n->dir.root);
            n->dir.root = 0;
        }
    }
}

/*
 * Clears away what earlier layers put into a directory. An entry that this layer named, or below
 * which it put something, bears the layer's number; so what bears another one goes as a whole.
 * Nothing of an earlier layer can come back within this one, so each directory is done once.
 */
static void prune(struct tree *t, uint32_t dir)
{
    AUTO_IDS struct ids dirs = {0};

    ids_push(&dirs, dir);
    while (dirs.len) {
        uint32_t at = dirs.ptr[--dirs.len];
        AUTO_IDS struct ids children = {0};

        if (inode_of(t, at)->dir.pruned == t->layer)
            continue;
        inode_of(t, at)->dir.pruned = t->layer;
        collect(t, at, &children);
        for (size_t i = 0; i < children.len; i++) {
            uint32_t d = children.ptr[i];

            if (dentry_at(t, d)->layer != t->layer)
                remove_entry(t, d);
            else if (S_ISDIR(inode_of(t, d)->mode))
                ids_push(&dirs, d);
        }
    }
}

int tree_make_opaque(struct tree *t, struct slice path, struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    struct slice clean;
    uint32_t dir;

    if (tree_clean(path, text, &clean, err) < 0 || tree_descend(t, clean, false, &dir, err) < 0)
        return -1;
    if (dir != UINT32_MAX)
        prune(t, dir);
    return 0;
}

int tree_whiteout(struct tree *t, struct slice path, struct error *err)
{
    char text[TREE_PATH_MAX + 1];
    struct slice clean, parent, last;
    uint32_t dir, d;

    if (tree_clean(path, text, &clean, err) < 0)
        return -1;
    tree_split_last(clean, &parent, &last);
    if (last.len == 0)
        return error_set(err, ERR_INVALID, "a whiteout names the root of the image");
    if (tree_descend(t, parent, false, &dir, err) < 0)
        return -1;
    d = dir == UINT32_MAX ? 0 : tree_child(t, dir, last);
    if (!d)
        return 0;
    if (dentry_at(t, d)->layer != t->layer)
        remove_entry(t, d);
    else if (S_ISDIR(inode_of(t, d)->mode))
        prune(t, d);
    return 0;
}
