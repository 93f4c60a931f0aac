/* Faults of disks and file servers, injected below a program by LD_PRELOAD.
 *
 * Every call on files below one folder is counted over all processes of a command; the n-th of the
 * chosen kinds fails, stalls, ends the process, or finds that somebody has rewritten a file. What to
 * do is read from a small file that stays mapped (SHIVACMB_FAULT_CONTROL), so that a test can tell a
 * process that runs already. The clock of the process can be set off as well.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_WRITE = 1, WRITE = 2, MKDIR = 4, RENAME = 8, FSYNC = 16,
       OPEN_READ = 32, READ = 64, LISTDIR = 128, STAT = 256 };
enum { FAIL = 0, STALL = 1, KILL = 2, SWAP = 3 };

struct control {
    _Atomic int64_t count;   /* calls of the chosen kinds so far */
    _Atomic int64_t hits;    /* faults injected so far */
    int64_t at;              /* the call to disturb, from 1; 0: none */
    int64_t times;           /* how many calls from there; 0: all that follow */
    int64_t kinds;
    int64_t action;
    int64_t error;           /* errno of FAIL */
    int64_t milliseconds;    /* of STALL */
    int64_t clock_offset;    /* seconds added to the time of day */
    char root[1024];         /* the folder or file that is watched */
    char swap[1024];         /* SWAP: what root becomes, in place */
    char last[1024];         /* the call that was disturbed, for the report */
    char log[1024];          /* where to list all calls that are counted */
};

static struct control *control;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("SHIVACMB_FAULT_CONTROL");
    if (!path) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (mapped != MAP_FAILED) control = mapped;
}

static int below(const char *path)
{
    size_t length = strlen(control->root);
    return length && !strncmp(path, control->root, length)
        && (path[length] == '/' || path[length] == '\0' || path[length] == ' ');
}

static void swap_file(void)
{
    char block[65536];
    int from = (int)syscall(SYS_openat, AT_FDCWD, control->swap, O_RDONLY, 0);
    int to = (int)syscall(SYS_openat, AT_FDCWD, control->root, O_WRONLY | O_TRUNC, 0);
    long got;
    while (from >= 0 && to >= 0 && (got = syscall(SYS_read, from, block, sizeof block)) > 0)
        syscall(SYS_write, to, block, got);
    syscall(SYS_close, from);
    syscall(SYS_close, to);
}

static void list_call(const char *call, const char *path)
{
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, length);
    syscall(SYS_close, fd);
}

/* Return an errno for the caller, or 0 to go on. */
static int disturb(int kind, const char *call, const char *path)
{
    if (!control || !control->at || !(control->kinds & kind) || !below(path)) return 0;
    int64_t number = atomic_fetch_add(&control->count, 1) + 1;
    if (control->log[0]) list_call(call, path);
    if (number < control->at) return 0;
    if (control->times && number >= control->at + control->times) return 0;
    atomic_fetch_add(&control->hits, 1);
    snprintf(control->last, sizeof control->last, "%s %.1000s", call, path);
    switch (control->action) {
    case STALL: {
        struct timespec wait = {control->milliseconds / 1000,
                                control->milliseconds % 1000 * 1000000};
        while (nanosleep(&wait, &wait) && errno == EINTR) {}
        return 0;
    }
    case KILL:
        kill(getpid(), SIGKILL);
        return 0;
    case SWAP:
        swap_file();
        return 0;
    }
    return (int)control->error;
}

static int disturb_at(int kind, const char *call, int dir, const char *path)
{
    char whole[PATH_MAX];
    if (!control || !control->at) return 0;
    if (path[0] == '/') return disturb(kind, call, path);
    char link[64], base[PATH_MAX];
    if (dir == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = '\0';
    }
    if (snprintf(whole, sizeof whole, "%s/%s", base, path) >= (int)sizeof whole) return 0;
    return disturb(kind, call, whole);
}

static int disturb_fd(int kind, const char *call, int fd)
{
    if (!control || !control->at || !(control->kinds & kind) || fd < 3) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return disturb(kind, call, path);
}

#define REFUSE(expression) \
    do { int problem = (expression); if (problem) { errno = problem; return -1; } } while (0)

static int open_kind(int flags)
{
    return flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR) ? OPEN_WRITE : OPEN_READ;
}

#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
    REAL(name); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    REFUSE(disturb_at(open_kind(flags), "open", AT_FDCWD, path)); \
    return real(path, flags, mode); \
}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
int name(int dir, const char *path, int flags, ...) \
{ \
    REAL(name); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    REFUSE(disturb_at(open_kind(flags), "open", dir, path)); \
    return real(dir, path, flags, mode); \
}
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    REFUSE(disturb_fd(WRITE, "write", fd));
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    REFUSE(disturb_fd(WRITE, "writev", fd));
    return real(fd, parts, count);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size);
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size)
{
    REAL(sendfile64);
    REFUSE(disturb_fd(WRITE, "sendfile", to));
    return real(to, from, offset, size);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags)
{
    REAL(copy_file_range);
    REFUSE(disturb_fd(WRITE, "copy_file_range", to));
    return real(from, a, to, b, size, flags);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    REFUSE(disturb_fd(WRITE, "ftruncate", fd));
    return real(fd, size);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    REFUSE(disturb_at(MKDIR, "mkdir", AT_FDCWD, path));
    return real(path, mode);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    REFUSE(disturb_at(RENAME, "rename", AT_FDCWD, to));
    return real(from, to);
}

int link(const char *from, const char *to)
{
    REAL(link);
    REFUSE(disturb_at(RENAME, "link", AT_FDCWD, to));
    return real(from, to);
}

int symlink(const char *target, const char *to)
{
    REAL(symlink);
    REFUSE(disturb_at(RENAME, "symlink", AT_FDCWD, to));
    return real(target, to);
}

int fsync(int fd)
{
    REAL(fsync);
    REFUSE(disturb_fd(FSYNC, "fsync", fd));
    return real(fd);
}

ssize_t read(int fd, void *data, size_t size)
{
    REAL(read);
    REFUSE(disturb_fd(READ, "read", fd));
    return real(fd, data, size);
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
    REAL(readv);
    REFUSE(disturb_fd(READ, "readv", fd));
    return real(fd, parts, count);
}

DIR *opendir(const char *path)
{
    REAL(opendir);
    int problem = disturb_at(LISTDIR, "opendir", AT_FDCWD, path);
    if (problem) { errno = problem; return NULL; }
    return real(path);
}

#define STATUS(name) \
int name(const char *path, struct stat64 *status) \
{ \
    REAL(name); \
    REFUSE(disturb_at(STAT, "stat", AT_FDCWD, path)); \
    return real(path, status); \
}
STATUS(stat64)
STATUS(lstat64)

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int code = real(clock, now);
    if (!code && clock == CLOCK_REALTIME && control) now->tv_sec += control->clock_offset;
    return code;
}

time_t time(time_t *out)
{
    REAL(time);
    time_t now = real(NULL) + (control ? control->clock_offset : 0);
    if (out) *out = now;
    return now;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    REAL(gettimeofday);
    int code = real(now, zone);
    if (!code && control) now->tv_sec += control->clock_offset;
    return code;
}
