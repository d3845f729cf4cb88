/* The time of day of one process, set forward by the seconds that a file holds.

   Loaded before the C library (LD_PRELOAD), so that everything in the process sees the same clock:
   Python, gRPC, the library that judges certificates. The file, named by KTAN_CLOCK, holds one
   64-bit integer in this machine's order, and may be changed at any time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *forward;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void set_up(void) {
    const char *path = getenv("KTAN_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0) abort();
    forward = mmap(NULL, sizeof *forward, PROT_READ, MAP_SHARED, file, 0);
    if (forward == MAP_FAILED) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) set_up();
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *forward;
    return result;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
