/* A CUDA driver that launches nothing and writes down what it was asked: enough of libcuda.so.1 for Triton.

   Kernel parameters are copied as they lie, 8 bytes of each (16 tensor map bytes: the address it was made for),
   as many as `stub_expect` announced. */
#include <stdint.h>
#include <string.h>

typedef int CUresult;
typedef struct {
  unsigned gridX, gridY, gridZ, blockX, blockY, blockZ, shared;
  void *stream, *attrs;
  unsigned count;
} Config;

/* cuda.h: CUlaunchAttribute, and CU_LAUNCH_ATTRIBUTE_COOPERATIVE. */
typedef struct {
  int id, pad, value, rest[15];
} Attribute;
#define COOPERATIVE 2

#define MOST 64
struct {
  unsigned grid[3], block, shared, launches, maps, together;
  uint64_t stream, function, params[MOST];
} stub_last;

static unsigned expected, loaded;

void stub_expect(unsigned count) { expected = count < MOST ? count : MOST; }

CUresult cuInit(unsigned flags) { return 0; }
CUresult cuDriverGetVersion(int *version) { return *version = 13020, 0; }
CUresult cuDeviceGet(int *device, int index) { return *device = index, 0; }
CUresult cuDeviceGetCount(int *count) { return *count = 2, 0; }
CUresult cuDeviceGetAttribute(int *value, int what, int device) {
  /* Of an H200: 97 is shared memory a block may have, 16 the multiprocessors, 10 threads of a warp. */
  *value = what == 97 ? 232448 : what == 16 ? 132 : what == 10 ? 32 : 65536;
  return 0;
}
CUresult cuCtxGetCurrent(void **context) { return *context = (void *)1, 0; }
CUresult cuCtxSetCurrent(void *context) { return 0; }
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)1, 0; }
CUresult cuModuleLoadData(void **module, const void *image) { return *module = (void *)(uintptr_t)++loaded, 0; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) { return *function = module, 0; }
CUresult cuFuncGetAttribute(int *value, int what, void *function) { return *value = what == 0 ? 1024 : 0, 0; }
CUresult cuFuncSetAttribute(void *function, int what, int value) { return 0; }
CUresult cuFuncSetCacheConfig(void *function, int config) { return 0; }
CUresult cuCtxGetLimit(size_t *value, int limit) { return *value = 0, 0; }
CUresult cuCtxSetLimit(int limit, size_t value) { return 0; }
CUresult cuGetErrorString(CUresult error, const char **text) { return *text = "stub", 0; }
CUresult cuPointerGetAttribute(void *value, int what, uint64_t pointer) { return 1; }
CUresult cuPointerGetAttributes(unsigned n, int *what, void **values, uint64_t pointer) { return 1; }
CUresult cuOccupancyMaxActiveClusters(int *count, void *function, const void *config) { return *count = 1, 0; }

CUresult cuTensorMapEncodeTiled(uint64_t *map, int type, uint32_t rank, void *address, const uint64_t *lengths,
                                const uint64_t *strides, const uint32_t *box, const uint32_t *steps,
                                int interleave, int swizzle, int promotion, int fill) {
  memset(map, 0, 128);
  map[0] = (uint64_t)address;
  stub_last.maps++;
  return 0;
}
CUresult cuTensorMapEncodeIm2col(void) { return 1; }

CUresult cuLaunchKernelEx(const Config *config, void *function, void **params, void **extra) {
  unsigned grid[3] = {config->gridX, config->gridY, config->gridZ};
  memcpy(stub_last.grid, grid, sizeof grid);
  stub_last.block = config->blockX;
  stub_last.shared = config->shared;
  stub_last.stream = (uint64_t)config->stream;
  stub_last.function = (uint64_t)function;
  stub_last.launches++;
  stub_last.together = 0;
  for (unsigned i = 0; i < config->count; i++) {
    const Attribute *attribute = (const Attribute *)config->attrs + i;
    if (attribute->id == COOPERATIVE) stub_last.together = attribute->value;
  }
  for (unsigned i = 0; i < expected; i++) memcpy(&stub_last.params[i], params[i], 8);
  return 0;
}
