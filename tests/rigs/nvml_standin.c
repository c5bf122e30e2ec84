/* A libnvidia-ml.so.1 without a GPU: the calls that greend makes, answered from a text file.
 *
 * $GREEND_NVML_SCENARIO names the file, read anew at every call:
 *
 *     gpus N                how many GPUs there are
 *     init CODE             nvmlInit answers this error
 *     now SECONDS           the time of the scenario; without it, CLOCK_BOOTTIME
 *     G.name TEXT           GPU G is called so
 *     G.power WATTS         what it draws
 *     G.energy MJ SINCE     its counter stood at MJ at time SINCE and grows by its power
 *     G.reset AT            driver reload: the counter restarts at 0 at that time
 *     G.lost AT             from then on every call answers GPU_IS_LOST
 *     G.util SM MEM         percent
 *     G.proc PID SM         a process on it, and its percent of SM time
 *     G.fail FUNCTION CODE  that call answers this error
 *     G.limit MW MIN MAX    its power limit and what that may be set to; a limit that is set is kept in
 *                           the file `$GREEND_NVML_SCENARIO.limitG`, which anybody may change
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NOT_LOADED = 9, LOST = 15, UNKNOWN = 999 };
enum { MAX_PROCESSES = 16, LINE = 256 };

typedef int Result;
typedef void *Device;
typedef unsigned long long u64;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 used_memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { unsigned pid; u64 timestamp; unsigned sm, mem, enc, dec; } ProcessSample;

static FILE *scenario(void) {
    const char *path = getenv("GREEND_NVML_SCENARIO");
    return path ? fopen(path, "re") : NULL;
}

/* Copy what follows `key` on its nth line (from 0), or answer 0 if there is none. */
static int nth(const char *key, int n, char *value) {
    FILE *file = scenario();
    char line[LINE];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ' ' && n-- == 0) {
            line[strcspn(line, "\n")] = 0;
            strcpy(value, line + length + 1);
            found = 1;
        }
    if (file) fclose(file);
    return found;
}

static int of_gpu(int gpu, const char *key, int n, char *value) {
    char whole[64];
    snprintf(whole, sizeof whole, "%d.%s", gpu, key);
    return nth(whole, n, value);
}

static double number(int gpu, const char *key, double otherwise) {
    char value[LINE];
    return of_gpu(gpu, key, 0, value) ? atof(value) : otherwise;
}

static double now(void) {
    char value[LINE];
    struct timespec t;
    if (nth("now", 0, value)) return atof(value);
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int count(void) {
    char value[LINE];
    return nth("gpus", 0, value) ? atoi(value) : 0;
}

static int index_of(Device device) { return (int)(long)device - 1; }

/* Whether this call on this GPU may go on: 0, or the error that the scenario wants. */
static Result gate(Device device, const char *function) {
    int gpu = index_of(device), code;
    char value[LINE], wanted[LINE];
    if (gpu < 0 || gpu >= count()) return INVALID;
    if (now() >= number(gpu, "lost", INFINITY)) return LOST;
    for (int n = 0; of_gpu(gpu, "fail", n, value); n++)
        if (sscanf(value, "%s %d", wanted, &code) == 2 && !strcmp(wanted, function)) return code;
    return OK;
}
#define GATE() do { Result refused = gate(device, __func__); if (refused) return refused; } while (0)

static int processes(int gpu, ProcessSample *samples) {
    char value[LINE];
    int n = 0;
    while (n < MAX_PROCESSES && of_gpu(gpu, "proc", n, value)) {
        memset(&samples[n], 0, sizeof samples[n]);
        sscanf(value, "%u %u", &samples[n].pid, &samples[n].sm);
        samples[n++].timestamp = (u64)(now() * 1e6);
    }
    return n;
}

Result nvmlInitWithFlags(unsigned flags) {
    char value[LINE];
    FILE *file = scenario();
    (void)flags;
    if (!file) return NOT_LOADED;
    fclose(file);
    return nth("init", 0, value) ? atoi(value) : OK;
}
Result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Result nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(Result code) {
    switch (code) {
        case OK: return "Success";
        case INVALID: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case 4: return "Insufficient Permissions";
        case NOT_FOUND: return "Not Found";
        case NOT_LOADED: return "Driver Not Loaded";
        case LOST: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}

Result nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return snprintf(text, length, "575.57.08") < (int)length ? OK : TOO_SMALL;
}

Result nvmlDeviceGetCount_v2(unsigned *n) { *n = (unsigned)count(); return OK; }

Result nvmlDeviceGetHandleByIndex_v2(unsigned i, Device *device) {
    *device = (Device)(long)(i + 1);
    return gate(*device, __func__);
}

Result nvmlDeviceGetName(Device device, char *name, unsigned length) {
    char value[LINE] = "NVIDIA Stand-in";
    GATE();
    of_gpu(index_of(device), "name", 0, value);
    return snprintf(name, length, "%s", value) < (int)length ? OK : TOO_SMALL;
}

Result nvmlDeviceGetPowerUsage(Device device, unsigned *mw) {
    GATE();
    *mw = (unsigned)lround(number(index_of(device), "power", 0) * 1000);
    return OK;
}

Result nvmlDeviceGetUUID(Device device, char *uuid, unsigned length) {
    GATE();
    return snprintf(uuid, length, "GPU-standin-%d", index_of(device)) < (int)length ? OK : TOO_SMALL;
}

static FILE *limit_file(Device device, const char *mode) {
    char path[LINE];
    snprintf(path, sizeof path, "%s.limit%d", getenv("GREEND_NVML_SCENARIO"), index_of(device));
    return fopen(path, mode);
}

static int limits(Device device, unsigned *mw, unsigned *least, unsigned *most) {
    char value[LINE];
    return of_gpu(index_of(device), "limit", 0, value) && sscanf(value, "%u %u %u", mw, least, most) == 3;
}

Result nvmlDeviceGetPowerManagementLimit(Device device, unsigned *mw) {
    unsigned least, most;
    GATE();
    if (!limits(device, mw, &least, &most)) return NOT_SUPPORTED;
    FILE *file = limit_file(device, "re");
    if (file) {
        if (fscanf(file, "%u", mw) != 1) { fclose(file); return UNKNOWN; }
        fclose(file);
    }
    return OK;
}

Result nvmlDeviceGetPowerManagementLimitConstraints(Device device, unsigned *least, unsigned *most) {
    unsigned mw;
    GATE();
    return limits(device, &mw, least, most) ? OK : NOT_SUPPORTED;
}

Result nvmlDeviceSetPowerManagementLimit(Device device, unsigned mw) {
    unsigned now_mw, least, most;
    GATE();
    if (!limits(device, &now_mw, &least, &most)) return NOT_SUPPORTED;
    if (mw < least || mw > most) return INVALID;
    FILE *file = limit_file(device, "we");
    if (!file) return UNKNOWN;
    fprintf(file, "%u\n", mw);
    fclose(file);
    return OK;
}

Result nvmlDeviceGetTotalEnergyConsumption(Device device, u64 *mj) {
    int gpu = index_of(device);
    double base = 0, since = 0, reset = number(gpu, "reset", INFINITY);
    char value[LINE];
    GATE();
    if (of_gpu(gpu, "energy", 0, value)) sscanf(value, "%lf %lf", &base, &since);
    if (now() >= reset) { base = 0; since = reset; }
    *mj = (u64)llround(base + number(gpu, "power", 0) * 1000 * (now() - since));
    return OK;
}

Result nvmlDeviceGetUtilizationRates(Device device, Utilization *util) {
    char value[LINE];
    GATE();
    util->gpu = util->memory = 0;
    if (of_gpu(index_of(device), "util", 0, value)) sscanf(value, "%u %u", &util->gpu, &util->memory);
    return OK;
}

Result nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *n, Process *out) {
    ProcessSample samples[MAX_PROCESSES];
    GATE();
    unsigned have = (unsigned)processes(index_of(device), samples), room = *n;
    *n = have;
    if (!have) return OK;
    if (!out || room < have) return TOO_SMALL;
    for (unsigned i = 0; i < have; i++) out[i] = (Process){samples[i].pid, 0, ~0u, ~0u};
    return OK;
}

Result nvmlDeviceGetProcessUtilization(Device device, ProcessSample *out, unsigned *n, u64 since) {
    ProcessSample samples[MAX_PROCESSES];
    GATE();
    unsigned have = (unsigned)processes(index_of(device), samples), room = *n;
    *n = have;
    if (!have || samples[0].timestamp <= since) return NOT_FOUND;
    if (!out || room < have) return TOO_SMALL;
    memcpy(out, samples, have * sizeof *out);
    return OK;
}
