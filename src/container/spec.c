#include "container/spec.h"

#include "container/seccomp.h"

#include <stdio.h>

#define SECCOMP_MAX ((size_t)64 << 10)

static void put(struct json_writer *w, const char *key, const char *value)
{
    json_put_key(w, key);
    json_put_cstr(w, value);
}

static void put_flag(struct json_writer *w, const char *key, bool value)
{
    json_put_key(w, key);
    json_put_bool(w, value);
}

static void port_key(uint16_t port, char out[16])
{
    snprintf(out, 16, "%u/tcp", port);
}

/* Is it the first of the ports that lead there? */
static bool is_first(const struct container_spec *s, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (s->ports[k].inside == s->ports[i].inside)
            return false;
    return true;
}

static void put_exposed(struct json_writer *w, const struct container_spec *s)
{
    char key[16];

    json_put_key(w, "ExposedPorts");
    json_put_object(w);
    for (size_t i = 0; i < s->port_count; i++) {
        if (!is_first(s, i))
            continue;
        port_key(s->ports[i].inside, key);
        json_put_key(w, key);
        json_put_object(w);
        json_put_object_end(w);
    }
    json_put_object_end(w);
}

/* Several host ports may lead to one port inside: each key has a list. */
static void put_bindings(struct json_writer *w, const struct container_spec *s)
{
    char text[16];

    json_put_key(w, "PortBindings");
    json_put_object(w);
    for (size_t i = 0; i < s->port_count; i++) {
        if (!is_first(s, i))
            continue;
        port_key(s->ports[i].inside, text);
        json_put_key(w, text);
        json_put_array(w);
        for (size_t k = i; k < s->port_count; k++) {
            if (s->ports[k].inside != s->ports[i].inside)
                continue;
            json_put_object(w);
            put(w, "HostIp", s->ports[k].address);
            snprintf(text, sizeof(text), "%u", s->ports[k].host);
            put(w, "HostPort", text);
            json_put_object_end(w);
        }
        json_put_array_end(w);
    }
    json_put_object_end(w);
}

static void put_mounts(struct json_writer *w, const struct container_spec *s)
{
    json_put_key(w, "Mounts");
    json_put_array(w);
    for (size_t i = 0; i < s->bind_count; i++) {
        json_put_object(w);
        put(w, "Type", "bind");
        put(w, "Source", s->binds[i].source);
        put(w, "Target", s->binds[i].target);
        put_flag(w, "ReadOnly", s->binds[i].read_only);
        json_put_key(w, "BindOptions");
        json_put_object(w);
        /* What becomes of the host's mount is not its business. */
        put(w, "Propagation", "rprivate");
        json_put_object_end(w);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

/* podman's own default profile has nothing against AF_VSOCK, and takes paths only. */
static int put_rights(struct json_writer *w, const struct container_spec *s, bool podman,
                      struct error *err)
{
    AUTO_BUF struct buf profile = BUF(SECCOMP_MAX);
    struct json_writer inner = {.out = &profile};

    put_flag(w, "Privileged", s->privileged);
    put_flag(w, "ReadonlyRootfs", !s->privileged);
    if (s->privileged)
        return 0;
    json_put_key(w, "SecurityOpt");
    json_put_array(w);
    json_put_cstr(w, "no-new-privileges");
    if (!podman) {
        if (buf_append_str(&profile, "seccomp=") < 0)
            return error_set(err, ERR_INTERNAL, "no room for a seccomp profile");
        container_seccomp_put(&inner);
        if (inner.failed)
            return error_set(err, ERR_INTERNAL, "the seccomp profile is too long");
        json_put_text(w, buf_slice(&profile));
    }
    json_put_array_end(w);
    json_put_key(w, "Tmpfs"); /* what nitro-cli and the shell write */
    json_put_object(w);
    put(w, "/run/nitro_enclaves", "rw,nosuid,nodev,noexec,mode=0755");
    put(w, "/var/log/nitro_enclaves", "rw,nosuid,nodev,noexec,mode=0755");
    put(w, "/tmp", "rw,nosuid,nodev,mode=1777");
    json_put_object_end(w);
    return 0;
}

static int put_host_config(struct json_writer *w, const struct container_spec *s, bool podman,
                           struct error *err)
{
    json_put_object(w);
    if (s->device) {
        json_put_key(w, "Devices");
        json_put_array(w);
        json_put_object(w);
        put(w, "PathOnHost", CONTAINER_DEVICE);
        put(w, "PathInContainer", CONTAINER_DEVICE);
        put(w, "CgroupPermissions", "rwm");
        json_put_object_end(w);
        json_put_array_end(w);
    }
    if (s->host_network)
        put(w, "NetworkMode", "host");
    else
        put_bindings(w, s);
    put_mounts(w, s);
    if (put_rights(w, s, podman, err) < 0)
        return -1;
    json_put_object_end(w);
    return 0;
}

int container_spec_format(const struct container_spec *s, const struct container_engine *e,
                          struct buf *out, struct error *err)
{
    struct json_writer w = {.out = out};

    json_put_object(&w);
    put(&w, "Image", s->image);
    json_put_key(&w, "Cmd");
    json_put_array(&w);
    for (size_t i = 0; s->command[i]; i++)
        json_put_cstr(&w, s->command[i]);
    json_put_array_end(&w);
    json_put_key(&w, "Labels");
    json_put_object(&w);
    put(&w, CONTAINER_LABEL, s->run);
    if (s->name[0])
        put(&w, CONTAINER_LABEL_NAME, s->name);
    json_put_object_end(&w);
    if (!s->host_network)
        put_exposed(&w, s);
    json_put_key(&w, "HostConfig");
    if (put_host_config(&w, s, e->podman, err) < 0)
        return -1;
    json_put_object_end(&w);
    if (w.failed)
        return error_set(err, ERR_LIMIT, "the description of the container is too long");
    return 0;
}
