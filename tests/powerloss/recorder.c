/* Records what a process does to the files below $POWERLOSS_DIR into $POWERLOSS_LOG, and fails calls on demand.
 *
 * Preloaded (LD_PRELOAD). Owns the order: one mutex is held over each real call and its record, so that the log is one
 * true history. Calls that it cannot record end the process, so that nothing escapes it: tests/powerloss/disk.py
 * additionally checks that replaying the whole log gives the real folder.
 *
 * A record, little-endian: u8 operation, i32 fd, i64 number, u32 path bytes, u32 data bytes, path, data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation { OP_OPEN = 1, OP_CLOSE, OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_RENAME, OP_UNLINK, OP_MKDIR, OP_MARK };
enum { FDS_MAX = 4096, PATH_BYTES = 4096 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_BYTES];
static size_t root_len;
static int log_fd = -1;
static unsigned char tracked[FDS_MAX]; /* 1: recorded; 2: the index of the write-ahead log, rebuilt after a crash */
static char fail_call[16];
static int fail_errno;
static char fail_suffix[256];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void die(const char *what)
{
    (void)fprintf(stderr, "recorder: cannot record %s\n", what);
    abort();
}

static void *find(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        die(name);
    }
    return found;
}

__attribute__((constructor)) static void recorder_start(void)
{
    real_open = find("open");
    real_openat = find("openat");
    real_close = find("close");
    real_write = find("write");
    real_pwrite = find("pwrite");
    real_ftruncate = find("ftruncate");
    real_fsync = find("fsync");
    real_fdatasync = find("fdatasync");
    real_rename = find("rename");
    real_unlink = find("unlink");
    real_mkdir = find("mkdir");
    real_mmap = find("mmap");
    const char *dir = getenv("POWERLOSS_DIR");
    const char *log = getenv("POWERLOSS_LOG");
    if (dir == NULL || log == NULL || strlen(dir) + 2 > sizeof root) {
        return;
    }
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    root_len = strlen(dir);
    memcpy(root, dir, root_len + 1);
}

static int inside(const char *path)
{
    return log_fd >= 0 && strncmp(path, root, root_len) == 0 && (path[root_len] == '/' || path[root_len] == '\0');
}

static int ends_with(const char *text, const char *suffix)
{
    const size_t text_len = strlen(text);
    const size_t suffix_len = strlen(suffix);
    return text_len >= suffix_len && strcmp(text + text_len - suffix_len, suffix) == 0;
}

static void record(enum operation op, int fd, int64_t number, const char *path, const void *data, size_t size)
{
    struct __attribute__((packed)) {
        uint8_t op;
        int32_t fd;
        int64_t number;
        uint32_t path_len;
        uint32_t size;
    } head = {(uint8_t)op, fd, number, (uint32_t)strlen(path), (uint32_t)size};
    const struct iovec parts[3] = {
        {&head, sizeof head}, {(void *)(uintptr_t)path, head.path_len}, {(void *)(uintptr_t)data, size}};
    ssize_t (*real_writev)(int, const struct iovec *, int) =
        (ssize_t (*)(int, const struct iovec *, int))find("writev");
    if (real_writev(log_fd, parts, 3) != (ssize_t)(sizeof head + head.path_len + size)) {
        die("the log");
    }
}

static int is_tracked(int fd)
{
    return fd >= 0 && fd < FDS_MAX && tracked[fd] == 1;
}

static int path_of(int fd, char *path)
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t len = readlink(link, path, PATH_BYTES - 1);
    if (len < 0) {
        return -1;
    }
    path[len] = '\0';
    return 0;
}

/* True when the test wants this call to fail; errno is set then. */
static int fails(const char *call, int fd)
{
    char path[PATH_BYTES];
    if (fail_errno == 0 || strcmp(call, fail_call) != 0 || path_of(fd, path) != 0 ||
        !ends_with(path, fail_suffix)) {
        return 0;
    }
    errno = fail_errno;
    return 1;
}

/* ---- called by the test ------------------------------------------------------------------------------------------ */

void recorder_mark(const char *text)
{
    pthread_mutex_lock(&mutex);
    record(OP_MARK, -1, 0, "", text, strlen(text));
    pthread_mutex_unlock(&mutex);
}

/* From now on `call` (write, sync) on files whose path ends with `suffix` fails with this error; 0 ends it. */
void recorder_fail(const char *call, int error, const char *suffix)
{
    pthread_mutex_lock(&mutex);
    (void)snprintf(fail_call, sizeof fail_call, "%s", call);
    (void)snprintf(fail_suffix, sizeof fail_suffix, "%s", suffix);
    fail_errno = error;
    pthread_mutex_unlock(&mutex);
}

/* ---- what the process calls -------------------------------------------------------------------------------------- */

static int opened(int fd, int existed, int flags)
{
    char path[PATH_BYTES];
    if (fd < 0 || log_fd < 0 || path_of(fd, path) != 0 || !inside(path)) {
        return fd;
    }
    if (fd >= FDS_MAX) {
        die("so many files");
    }
    tracked[fd] = ends_with(path, "-shm") ? 2 : 1;
    if (tracked[fd] == 1) {
        record(OP_OPEN, fd, existed ? 0 : 1, path, "", 0);
        if (existed && (flags & O_TRUNC) != 0) {
            record(OP_TRUNCATE, fd, 0, "", "", 0);
        }
    }
    return fd;
}

static int open_recorded(int dirfd, const char *path, int flags, mode_t mode)
{
    struct stat found;
    const int saved = errno;
    pthread_mutex_lock(&mutex);
    const int existed = fstatat(dirfd, path, &found, 0) == 0;
    errno = saved;
    const int fd = opened(real_openat(dirfd, path, flags, mode), existed, flags);
    pthread_mutex_unlock(&mutex);
    return fd;
}

static mode_t mode_of(int flags, va_list *args)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(*args, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = mode_of(flags, &args);
    va_end(args);
    return open_recorded(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = mode_of(flags, &args);
    va_end(args);
    return open_recorded(AT_FDCWD, path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = mode_of(flags, &args);
    va_end(args);
    return open_recorded(dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = mode_of(flags, &args);
    va_end(args);
    return open_recorded(dirfd, path, flags, mode);
}

int close(int fd)
{
    pthread_mutex_lock(&mutex);
    if (is_tracked(fd)) {
        record(OP_CLOSE, fd, 0, "", "", 0);
    }
    if (fd >= 0 && fd < FDS_MAX) {
        tracked[fd] = 0;
    }
    const int result = real_close(fd);
    pthread_mutex_unlock(&mutex);
    return result;
}

static ssize_t write_recorded(int fd, const void *data, size_t size, off_t offset, int positioned)
{
    if (!is_tracked(fd)) {
        return positioned ? real_pwrite(fd, data, size, offset) : real_write(fd, data, size);
    }
    pthread_mutex_lock(&mutex);
    ssize_t written = -1;
    if (!fails("write", fd)) {
        if (!positioned) {
            offset = lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
        }
        written = real_pwrite(fd, data, size, offset);
        if (written > 0) {
            if (!positioned) {
                (void)lseek(fd, offset + written, SEEK_SET);
            }
            record(OP_WRITE, fd, offset, "", data, (size_t)written);
        }
    }
    pthread_mutex_unlock(&mutex);
    return written;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return write_recorded(fd, data, size, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_recorded(fd, data, size, offset, 1);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return write_recorded(fd, data, size, offset, 1);
}

static int truncate_recorded(int fd, off_t length)
{
    pthread_mutex_lock(&mutex);
    const int result = real_ftruncate(fd, length);
    if (result == 0 && is_tracked(fd)) {
        record(OP_TRUNCATE, fd, length, "", "", 0);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate(int fd, off_t length)
{
    return truncate_recorded(fd, length);
}

int ftruncate64(int fd, off_t length)
{
    return truncate_recorded(fd, length);
}

static int sync_recorded(int fd, int (*real)(int))
{
    if (!is_tracked(fd)) {
        return real(fd);
    }
    pthread_mutex_lock(&mutex);
    int result = -1;
    if (!fails("sync", fd)) {
        result = real(fd);
        if (result == 0) {
            record(OP_SYNC, fd, 0, "", "", 0);
        }
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int fsync(int fd)
{
    return sync_recorded(fd, real_fsync);
}

int fdatasync(int fd)
{
    return sync_recorded(fd, real_fdatasync);
}

int rename(const char *from, const char *to)
{
    pthread_mutex_lock(&mutex);
    const int result = real_rename(from, to);
    if (result == 0 && (inside(from) || inside(to))) {
        record(OP_RENAME, -1, 0, from, to, strlen(to));
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int unlink(const char *path)
{
    pthread_mutex_lock(&mutex);
    const int result = real_unlink(path);
    if (result == 0 && inside(path) && !ends_with(path, "-shm")) {
        record(OP_UNLINK, -1, 0, path, "", 0);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    pthread_mutex_lock(&mutex);
    const int result = real_mkdir(path, mode);
    if (result == 0 && inside(path)) {
        record(OP_MKDIR, -1, 0, path, "", 0);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (real_mmap == NULL) { /* the loader maps libraries before our constructor ran */
        real_mmap = find("mmap");
    }
    if (is_tracked(fd) && (protection & PROT_WRITE) != 0 && (flags & MAP_SHARED) != 0) {
        die("writes through mmap");
    }
    return real_mmap(address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(address, length, protection, flags, fd, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real)(int, const struct iovec *, int) = (ssize_t (*)(int, const struct iovec *, int))find("writev");
    if (is_tracked(fd)) {
        die("writev");
    }
    return real(fd, parts, count);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    int (*real)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))find("fallocate");
    if (is_tracked(fd)) {
        die("fallocate");
    }
    return real(fd, mode, offset, length);
}

int link(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))find("link");
    if (inside(from) || inside(to)) {
        die("link");
    }
    return real(from, to);
}
