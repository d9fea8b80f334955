/* A stand-in for the CUDA runtime: "device" memory is the host's, a copy is done when it is started. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { double ms; } mark;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

const char *cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "invalid argument"; }
int cudaStreamCreate(void **stream) { *stream = malloc(1); return 0; }
int cudaStreamSynchronize(void *stream) { return stream ? 0 : 1; }
int cudaMalloc(void **at, size_t size) { return size > (1UL << 40) ? 2 : !(*at = malloc(size)); }
int cudaMallocHost(void **at, size_t size) { return cudaMalloc(at, size); }
int cudaFree(void *at) { free(at); return 0; }
int cudaFreeHost(void *at) { free(at); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if (!stream || (kind != 1 && kind != 2)) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaEventCreate(void **event) { *event = malloc(sizeof(mark)); return 0; }
int cudaEventRecord(void *event, void *stream) { ((mark *)event)->ms = now(); return stream ? 0 : 1; }
int cudaEventElapsedTime(float *ms, void *first, void *last) {
    *ms = (float)(((mark *)last)->ms - ((mark *)first)->ms);
    return 0;
}
