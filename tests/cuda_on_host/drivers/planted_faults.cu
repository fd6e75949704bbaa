// Small kernels, each in a correct version and in versions with one planted fault, named by the case.
#include "drivers/driver.h"

namespace {

namespace gpu = crnn::gpu;
using driver::DeviceTensor;
using driver::expect_close;

constexpr int kThreads = 128;
constexpr gpu::Stream kStream = {nullptr, "planted_faults"};

enum class Fault {
  kNone,
  kNoBarrier,
  kBufferReusedEarly,
  kBarrierInBranches,
  kBarrierSkipped,
  kReturnBeforeBarrier,
  kSharedUninitialized,
  kStaticOverrun,
  kNoSyncwarp,
  kMaskWithoutOwnLane,
  kMasksDiffer,
  kLanesReturned,
  kSharedAddNotAtomic,
  kGlobalAddNotAtomic,
  kDynamicOverrun,
  kReadPastEnd,
  kWritePastEnd,
  kReadMisaligned,
  kGlobalUninitialized,
  kResultNotWritten,
};

// Faults that only wrong results reveal; tools that check memory accesses and barriers cannot find them.
enum class NumericalFault { kNone, kPartnersDiffer };

// Each block sums rows one after another: every warp sums its part, then every thread sums the parts.
//
// matrix: (rows, kThreads); sums: (rows, kThreads), the row's sum in every element
template <Fault kFault>
__global__ void __launch_bounds__(kThreads)
    sum_rows(const float* __restrict__ matrix, int rows, float* sums) {
  constexpr int kWarps = kThreads / gpu::kWarpSize;
  GPU_SHARED(parts, float[kWarps]);
  const int lane = threadIdx.x % gpu::kWarpSize, warp = threadIdx.x / gpu::kWarpSize;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = matrix[row * kThreads + threadIdx.x];
    for (int distance = gpu::kWarpSize / 2; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(gpu::kFullMask, sum, distance);
    if (lane == 0 && (kFault != Fault::kSharedUninitialized || warp != 1)) parts[warp] = sum;
    if constexpr (kFault == Fault::kStaticOverrun) {
      if (threadIdx.x == 0) parts[blockDim.x / gpu::kWarpSize] = 0;
    }
    if constexpr (kFault == Fault::kBarrierInBranches) {
      if (warp == 0) {
        __syncthreads();
      } else {
        __syncthreads();
      }
    } else if constexpr (kFault == Fault::kBarrierSkipped) {
      if (warp != 1) __syncthreads();
    } else if constexpr (kFault == Fault::kReturnBeforeBarrier) {
      if (warp == 1) return;
      __syncthreads();
    } else if constexpr (kFault != Fault::kNoBarrier) {
      __syncthreads();
    }
    sum = 0;
    for (int i = 0; i < kWarps; ++i) sum += parts[i];
    if constexpr (kFault != Fault::kBufferReusedEarly) __syncthreads();
    sums[row * kThreads + threadIdx.x] = sum;
  }
}

template <Fault kFault>
void run_sum_rows() {
  constexpr int kRows = 5, kBlocks = 2;
  std::vector<float> matrix(kRows * kThreads), expected;
  for (int row = 0; row < kRows; ++row) {
    float sum = 0;
    for (int i = 0; i < kThreads; ++i) sum += matrix[row * kThreads + i] = float((row + 1) * i % 17);
    expected.resize((row + 1) * kThreads, sum);
  }
  const DeviceTensor<float> device_matrix({kRows, kThreads}, matrix), sums({kRows, kThreads});
  gpu::launch(sum_rows<kFault>, kBlocks, kThreads, 0, kStream, device_matrix.data(), kRows, sums.data());
  expect_close("sums", sums, expected);
}

// One warp computes out[lane] = in[lane + 1] through shared memory.
template <Fault kFault>
__global__ void rotate(const int* __restrict__ in, int* out) {
  GPU_SHARED(held, int[gpu::kWarpSize]);
  const int lane = threadIdx.x;
  held[lane] = in[lane];
  if constexpr (kFault == Fault::kMaskWithoutOwnLane) {
    __syncwarp(0x0000ffffu);
  } else if constexpr (kFault == Fault::kMasksDiffer) {
    __syncwarp(lane < 16 ? 0x0001ffffu : gpu::kFullMask);
  } else if constexpr (kFault == Fault::kLanesReturned) {
    if (lane == 3) return;
    __syncwarp();
  } else if constexpr (kFault != Fault::kNoSyncwarp) {
    __syncwarp();
  }
  out[lane] = held[(lane + 1) % gpu::kWarpSize];
}

template <Fault kFault>
void run_rotate() {
  std::vector<int> in(gpu::kWarpSize), expected(gpu::kWarpSize);
  for (int i = 0; i < gpu::kWarpSize; ++i) {
    in[i] = i * i;
    expected[(i + gpu::kWarpSize - 1) % gpu::kWarpSize] = in[i];
  }
  const DeviceTensor<int> device_in({gpu::kWarpSize}, in), out({gpu::kWarpSize});
  gpu::launch(rotate<kFault>, 1, gpu::kWarpSize, 0, kStream, device_in.data(), out.data());
  expect_close("out", out, expected);
}

// How often each value occurs: counted for the block in its shared memory, and then for all.
template <Fault kFault>
__global__ void count_values(const int* __restrict__ values, int bins, int* counts) {
  GPU_DYNAMIC_SHARED(int, of_block);
  const int own = threadIdx.x;
  if (own < (kFault == Fault::kDynamicOverrun ? bins + 1 : bins)) of_block[own] = 0;
  __syncthreads();
  const int value = values[blockIdx.x * blockDim.x + threadIdx.x];
  if constexpr (kFault == Fault::kSharedAddNotAtomic) {
    of_block[value] += 1;
  } else {
    atomicAdd(&of_block[value], 1);
  }
  __syncthreads();
  if (own >= bins) return;
  if constexpr (kFault == Fault::kGlobalAddNotAtomic) {
    counts[own] += of_block[own];
  } else {
    atomicAdd(&counts[own], of_block[own]);
  }
}

template <Fault kFault>
void run_count_values() {
  constexpr int kBlocks = 3, kBins = 10;
  std::vector<int> values(kBlocks * kThreads), expected(kBins);
  for (int i = 0; i < kBlocks * kThreads; ++i) ++expected[values[i] = i * 7 % 31 % kBins];
  const DeviceTensor<int> device_values({kBlocks * kThreads}, values);
  const DeviceTensor<int> counts({kBins}, std::vector<int>(kBins));
  gpu::launch(count_values<kFault>, kBlocks, kThreads, kBins * sizeof(int), kStream, device_values.data(),
              kBins, counts.data());
  expect_close("counts", counts, expected);
}

// Writes `in` to `out` in reverse order.
template <Fault kFault>
__global__ void reverse(const float* __restrict__ in, int elements, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, mirrored = elements - 1 - i;
  float value = in[kFault == Fault::kReadPastEnd ? mirrored + 1 : mirrored];
  if constexpr (kFault == Fault::kReadMisaligned) {
    if (i == 0) value += 0 * float(*reinterpret_cast<const double*>(in + 1));
  }
  if (kFault == Fault::kResultNotWritten && i == 40) return;
  out[kFault == Fault::kWritePastEnd ? i + 1 : i] = value;
}

template <Fault kFault>
void run_reverse() {
  constexpr int kBlocks = 2, kElements = kBlocks * kThreads;
  std::vector<float> values(kElements), expected(kElements);
  for (int i = 0; i < kElements; ++i) values[i] = expected[kElements - 1 - i] = float(i);
  const DeviceTensor<float> in({kElements}, values), unwritten({kElements}), out({kElements});
  const float* source = kFault == Fault::kGlobalUninitialized ? unwritten.data() : in.data();
  gpu::launch(reverse<kFault>, kBlocks, kThreads, 0, kStream, source, kElements, out.data());
  expect_close("out", out, expected);
}

// Two lanes exchange their values, and both compute the sum of the squares. differences: one result minus the
// other.
template <NumericalFault kFault>
__global__ void add_squares(const float* __restrict__ in, float* differences) {
  const int lane = threadIdx.x;
  const float own = in[lane], other = __shfl_xor_sync(gpu::kFullMask, own, 1);
  // Compiles to fma(a, a, b * b), which rounds differently from fma(b, b, a * a).
  const bool is_first = kFault == NumericalFault::kPartnersDiffer || lane % 2 == 0;
  const float a = is_first ? own : other, b = is_first ? other : own;
  const float sum = a * a + b * b;
  differences[lane] = sum - __shfl_xor_sync(gpu::kFullMask, sum, 1);
}

template <NumericalFault kFault>
void run_add_squares() {
  std::vector<float> in;
  for (int i = 0; i < gpu::kWarpSize; ++i) in.push_back(1 / float(i + 3));
  const DeviceTensor<float> device_in({gpu::kWarpSize}, in), differences({gpu::kWarpSize});
  gpu::launch(add_squares<kFault>, 1, gpu::kWarpSize, 0, kStream, device_in.data(), differences.data());
  expect_close("differences", differences, std::vector<float>(gpu::kWarpSize));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<driver::Case> cases = {
      {"sum_rows", run_sum_rows<Fault::kNone>},
      {"sum_rows without a barrier", run_sum_rows<Fault::kNoBarrier>},
      {"sum_rows reuses its buffer a barrier early", run_sum_rows<Fault::kBufferReusedEarly>},
      {"sum_rows with a barrier in both branches", run_sum_rows<Fault::kBarrierInBranches>},
      {"sum_rows with a warp that skips a barrier", run_sum_rows<Fault::kBarrierSkipped>},
      {"sum_rows with a warp that returns before a barrier", run_sum_rows<Fault::kReturnBeforeBarrier>},
      {"sum_rows reads unwritten shared memory", run_sum_rows<Fault::kSharedUninitialized>},
      {"sum_rows writes past a shared variable", run_sum_rows<Fault::kStaticOverrun>},
      {"rotate", run_rotate<Fault::kNone>},
      {"rotate without __syncwarp", run_rotate<Fault::kNoSyncwarp>},
      {"rotate with a mask without its own lane", run_rotate<Fault::kMaskWithoutOwnLane>},
      {"rotate with masks that differ", run_rotate<Fault::kMasksDiffer>},
      {"rotate with a lane that has returned", run_rotate<Fault::kLanesReturned>},
      {"count_values", run_count_values<Fault::kNone>},
      {"count_values adds to shared memory without atomicAdd", run_count_values<Fault::kSharedAddNotAtomic>},
      {"count_values adds to global memory without atomicAdd", run_count_values<Fault::kGlobalAddNotAtomic>},
      {"count_values writes past dynamic shared memory", run_count_values<Fault::kDynamicOverrun>},
      {"reverse", run_reverse<Fault::kNone>},
      {"reverse reads past global memory", run_reverse<Fault::kReadPastEnd>},
      {"reverse writes past global memory", run_reverse<Fault::kWritePastEnd>},
      {"reverse reads at a misaligned address", run_reverse<Fault::kReadMisaligned>},
      {"reverse reads unwritten global memory", run_reverse<Fault::kGlobalUninitialized>},
      {"reverse skips an element", run_reverse<Fault::kResultNotWritten>},
      {"add_squares", run_add_squares<NumericalFault::kNone>},
      {"add_squares with swapped operands", run_add_squares<NumericalFault::kPartnersDiffer>},
  };
  return driver::run(cases, argc, argv);
}
