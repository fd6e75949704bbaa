// The results of CUDA's built-in functions and of common/warp.cuh, and correct code that no checker may
// report.
#include <bit>

#include "common/row_statistics.cuh"
#include "common/warp.cuh"
#include "drivers/driver.h"

namespace {

namespace gpu = crnn::gpu;
using driver::DeviceTensor;
using driver::expect_close;

constexpr gpu::Stream kStream = {nullptr, "self_test"};

// ---- Shuffles ----

enum class Mode { kUp, kDown, kXor, kIndex };
constexpr int kModes = 4, kDistances = 32;

// results: (kModes, kDistances, lanes)
template <class T, int kWidth>
__global__ void shuffle_all(T* results) {
  const int lane = threadIdx.x;
  const T value = T(lane * 3 + 1);
  const auto at = [&](Mode mode, int distance) -> T& {
    return results[(int(mode) * kDistances + distance) * gpu::kWarpSize + lane];
  };
  for (int distance = 0; distance < kDistances; ++distance) {
    at(Mode::kUp, distance) = __shfl_up_sync(gpu::kFullMask, value, distance, kWidth);
    at(Mode::kDown, distance) = __shfl_down_sync(gpu::kFullMask, value, distance, kWidth);
    at(Mode::kXor, distance) = __shfl_xor_sync(gpu::kFullMask, value, distance, kWidth);
    // Lanes read different source lanes, some of them beyond the width.
    at(Mode::kIndex, distance) = __shfl_sync(gpu::kFullMask, value, distance + lane % 3, kWidth);
  }
}

// The source lane, as PTX defines shfl.sync.
int source_lane(Mode mode, int lane, int operand, int width) {
  const int first = lane & ~(width - 1), last = first | (width - 1);
  switch (mode) {
    case Mode::kUp:
      return lane - operand >= first ? lane - operand : lane;
    case Mode::kDown:
      return lane + operand <= last ? lane + operand : lane;
    case Mode::kXor:
      return (lane ^ operand) <= last ? lane ^ operand : lane;
    case Mode::kIndex:
      return first | (operand & (width - 1));
  }
  return -1;
}

template <class T, int kWidth>
void run_shuffles() {
  const DeviceTensor<T> results({kModes, kDistances, gpu::kWarpSize});
  gpu::launch(shuffle_all<T, kWidth>, 1, gpu::kWarpSize, 0, kStream, results.data());
  std::vector<T> expected;
  for (int mode = 0; mode < kModes; ++mode) {
    for (int distance = 0; distance < kDistances; ++distance) {
      for (int lane = 0; lane < gpu::kWarpSize; ++lane) {
        const int operand = Mode(mode) == Mode::kIndex ? distance + lane % 3 : distance;
        expected.push_back(T(source_lane(Mode(mode), lane, operand, kWidth) * 3 + 1));
      }
    }
  }
  expect_close("results", results, expected);
}

// Two groups of lanes in different branches, each with its own mask.
__global__ void shuffle_in_groups(int* results) {
  const int lane = threadIdx.x;
  if (lane < 12) {
    results[lane] = __shfl_xor_sync(0x00000fffu, lane, 3);
  } else {
    results[lane] = __shfl_down_sync(0xfffff000u, lane, 1);
  }
}

void run_shuffle_in_groups() {
  const DeviceTensor<int> results({gpu::kWarpSize});
  gpu::launch(shuffle_in_groups, 1, gpu::kWarpSize, 0, kStream, results.data());
  std::vector<int> expected;
  for (int lane = 0; lane < gpu::kWarpSize; ++lane)
    expected.push_back(lane < 12 ? lane ^ 3 : lane == 31 ? lane : lane + 1);
  expect_close("results", results, expected);
}

// ---- Votes ----

// results: (3, lanes), only written by the lanes in the mask
__global__ void vote(unsigned mask, unsigned holds, unsigned* results) {
  const int lane = threadIdx.x;
  if ((mask >> lane & 1) == 0) return;
  const int predicate = (holds >> lane & 1) != 0 ? 4 : 0;  // any nonzero value is true
  results[lane] = __ballot_sync(mask, predicate);
  results[gpu::kWarpSize + lane] = __any_sync(mask, predicate);
  results[2 * gpu::kWarpSize + lane] = __all_sync(mask, predicate);
}

void run_votes() {
  for (const unsigned mask : {0xffffffffu, 0x0000ffffu, 0x80000021u, 0x00000001u}) {
    for (const unsigned holds : {0u, 0xffffffffu, 0x00000020u, 0xffff0000u}) {
      constexpr unsigned kUnwritten = 77;
      const DeviceTensor<unsigned> results({3, gpu::kWarpSize},
                                           std::vector<unsigned>(3 * gpu::kWarpSize, kUnwritten));
      gpu::launch(vote, 1, gpu::kWarpSize, 0, kStream, mask, holds, results.data());
      std::vector<unsigned> expected;
      for (const unsigned result :
           {holds & mask, unsigned((holds & mask) != 0), unsigned((holds & mask) == mask)})
        for (int lane = 0; lane < gpu::kWarpSize; ++lane)
          expected.push_back((mask >> lane & 1) != 0 ? result : kUnwritten);
      expect_close("results", results, expected);
    }
  }
}

// ---- Blocks ----

// results: (2, rounds, threads): whether any thread's number is 2 * round, and then the result of the vote on
// `false` at the end of the previous round
__global__ void vote_in_block(int rounds, int* results) {
  const int thread = threadIdx.x, threads = blockDim.x;
  int before = 0;
  for (int round = 0; round < rounds; ++round) {
    results[round * threads + thread] = __syncthreads_or(thread == round * 2);
    results[(rounds + round) * threads + thread] = before;
    before = __syncthreads_or(false);
  }
}

void run_block_votes() {
  constexpr int kRounds = 40, kThreads = 64;
  const DeviceTensor<int> results({2, kRounds, kThreads});
  gpu::launch(vote_in_block, 1, kThreads, 0, kStream, kRounds, results.data());
  std::vector<int> expected;
  for (int round = 0; round < kRounds; ++round)
    expected.resize(expected.size() + kThreads, round * 2 < kThreads ? 1 : 0);
  expected.resize(2 * kRounds * kThreads, 0);
  expect_close("results", results, expected);
}

// results: (blocks, threads), the number of each thread in the grid, reversed within each block
__global__ void number_threads(int* results) {
  GPU_DYNAMIC_SHARED(int, numbers);
  GPU_SHARED(threads, int);
  numbers[threadIdx.x] = blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x == 0) threads = blockDim.x;
  __syncthreads();
  const int mirrored = threads - 1 - threadIdx.x;
  results[(gridDim.x - 1 - blockIdx.x) * blockDim.x + threadIdx.x] = numbers[mirrored];
}

void run_number_threads() {
  constexpr int kBlocks = 7, kThreads = 1024;
  const DeviceTensor<int> results({kBlocks, kThreads});
  gpu::launch(number_threads, kBlocks, kThreads, kThreads * sizeof(int), kStream, results.data());
  std::vector<int> expected(kBlocks * kThreads);
  for (int i = 0; i < kBlocks * kThreads; ++i) expected[i] = kBlocks * kThreads - 1 - i;
  expect_close("results", results, expected);
}

// ---- Folds ----

// results: (2, kThreads), the sum of the threads' numbers and the sum of their doubles
template <int kThreads>
__global__ void reduce_twice(int* results) {
  int sum = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    sum = gpu::tile_reduce<kThreads>(sum, [](int a, int b) { return a + b; });
    results[i * kThreads + threadIdx.x] = sum;
    sum = 2 * int(threadIdx.x);
  }
}

void run_reductions() {
  constexpr int kThreads = 256, kSum = kThreads * (kThreads - 1) / 2;
  const DeviceTensor<int> results({2, kThreads});
  gpu::launch(reduce_twice<kThreads>, 1, kThreads, 0, kStream, results.data());
  std::vector<int> expected(2 * kThreads, kSum);
  for (int i = 0; i < kThreads; ++i) expected[kThreads + i] = 2 * kSum;
  expect_close("results", results, expected);
}

// row: (classes,); statistics: (kThreadsPerRow,), the result in each thread
template <int kThreadsPerRow, class Real>
__global__ void statistics_in_all_threads(const Real* row, int classes,
                                          crnn::RowStatistics<Real>* statistics) {
  const int thread = threadIdx.x % kThreadsPerRow;
  const auto of_row = crnn::compute_row_statistics<kThreadsPerRow>(row, 1, classes, thread);
  if (threadIdx.x < kThreadsPerRow) statistics[thread] = of_row;
}

// All threads of a row get the same bits, also with fused multiply-add and also for a peak of +0 or -0.
template <int kThreadsPerRow, class Real>
void run_statistics() {
  using Statistics = crnn::RowStatistics<Real>;
  std::mt19937 generator(kThreadsPerRow);
  std::normal_distribution<double> normal;
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<Real> row(4 * kThreadsPerRow + repeat);
    for (Real& x : row) x = Real(3 * normal(generator));
    if (repeat % 4 == 1)
      for (Real& x : row) x = Real(std::copysign(0.0, x));
    const DeviceTensor<Real> values({int64_t(row.size())}, row);
    const DeviceTensor<Real> results({kThreadsPerRow, 2});
    gpu::launch(statistics_in_all_threads<kThreadsPerRow, Real>, 1, std::max(kThreadsPerRow, gpu::kWarpSize),
                0, kStream, values.data(), int(row.size()), reinterpret_cast<Statistics*>(results.data()));
    const std::vector<Real> of_threads = results.to_host();
    for (int thread = 1; thread < kThreadsPerRow; ++thread)
      if (std::memcmp(&of_threads[2 * thread], of_threads.data(), sizeof(Statistics)) != 0)
        throw std::runtime_error("thread " + std::to_string(thread) + " differs from thread 0");
  }
}

// ---- Atomics ----

// results: (1 + number of threads,): the sum, and how often atomicAdd returned each partial sum
template <class T>
__global__ void add_all(T* results) {
  const T before = atomicAdd(results, T(2));
  atomicAdd(&results[1 + int64_t(before) / 2], T(1));
}

template <class T>
void run_atomics() {
  constexpr int kBlocks = 3, kThreads = 64, kAdditions = kBlocks * kThreads;
  const DeviceTensor<T> results({1 + kAdditions}, std::vector<T>(1 + kAdditions));
  gpu::launch(add_all<T>, kBlocks, kThreads, 0, kStream, results.data());
  std::vector<T> expected(1 + kAdditions, T(1));
  expected[0] = T(2 * kAdditions);
  expect_close("results", results, expected);
}

// ---- Correctly ordered accesses ----

// Neighbors exchange a number: first within each half of the warp, ordered by a __syncwarp of that half, then
// between the halves, ordered by a __syncwarp of all lanes.
__global__ void exchange_in_warp(int* results) {
  GPU_SHARED(held, int[gpu::kWarpSize]);
  const int lane = threadIdx.x, half = lane / 16;
  const unsigned mask = half == 0 ? 0x0000ffffu : 0xffff0000u;
  held[lane] = lane;
  __syncwarp(mask);
  const int neighbor = held[half * 16 + (lane + 1) % 16];
  __syncwarp(mask);
  held[lane] = neighbor;
  __syncwarp();
  results[lane] = held[(lane + 16) % gpu::kWarpSize];
}

void run_exchange_in_warp() {
  const DeviceTensor<int> results({gpu::kWarpSize});
  gpu::launch(exchange_in_warp, 1, gpu::kWarpSize, 0, kStream, results.data());
  std::vector<int> expected;
  for (int lane = 0; lane < gpu::kWarpSize; ++lane)
    expected.push_back((lane / 16 ^ 1) * 16 + (lane + 1) % 16);
  expect_close("results", results, expected);
}

// Each thread writes its own byte. All threads read a number that only the next launch writes.
__global__ void write_bytes(const unsigned char* __restrict__ number, unsigned char* bytes) {
  bytes[blockIdx.x * blockDim.x + threadIdx.x] = *number;
}

__global__ void write_number(unsigned char* number) {
  if (threadIdx.x == 0) *number += 1;
}

void run_neighboring_bytes() {
  constexpr int kBlocks = 3, kThreads = 32;
  const DeviceTensor<unsigned char> number({1}, {1}), bytes({kBlocks * kThreads});
  for (int i = 0; i < 2; ++i) {
    gpu::launch(write_bytes, kBlocks, kThreads, 0, kStream, number.data(), bytes.data());
    gpu::launch(write_number, 1, kThreads, 0, kStream, number.data());
  }
  expect_close("bytes", bytes, std::vector<int>(kBlocks * kThreads, 2));
  expect_close("number", number, std::vector<int>{3});
}

// ---- Functions ----

constexpr int kArguments = 256;

// results: (3, kArguments)
template <class Real>
__global__ void call_functions(const Real* __restrict__ arguments, Real* results) {
  const int i = threadIdx.x;
  results[i] = gpu::exp2(arguments[i]);
  results[kArguments + i] = gpu::log(arguments[i]);
  results[2 * kArguments + i] = gpu::log2(arguments[i]);
}

// The error of each function is within the ulps that CUDA documents. With CUDA_ON_HOST_ROUNDING, every such
// error occurs.
template <class Real>
void run_functions() {
  using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
  std::vector<Real> arguments;
  std::vector<Real> exact(3 * kArguments);
  for (int i = 0; i < kArguments; ++i) {
    const long double x = arguments.emplace_back(Real(0.05) * Real(i + 1));
    exact[i] = Real(std::exp2(x));
    exact[kArguments + i] = Real(std::log(x));
    exact[2 * kArguments + i] = Real(std::log2(x));
  }
  const DeviceTensor<Real> device_arguments({kArguments}, arguments), results({3, kArguments});
  gpu::launch(call_functions<Real>, 1, kArguments, 0, kStream, device_arguments.data(), results.data());
  const std::vector<Real> values = results.to_host();
  for (int function = 0; function < 3; ++function) {
    std::set<int64_t> seen;
    for (int i = function * kArguments; i < (function + 1) * kArguments; ++i)
      seen.insert(int64_t(std::bit_cast<Bits>(values[i])) - int64_t(std::bit_cast<Bits>(exact[i])));
    const int64_t most = function == 0 && sizeof(Real) == 4 ? 2 : 1;
    const bool within = -most <= *seen.begin() && *seen.rbegin() <= most;
#ifdef CUDA_ON_HOST_ROUNDING
    const bool all = int64_t(seen.size()) == 2 * most + 1;
#else
    const bool all = true;
#endif
    if (!within || !all) throw std::runtime_error("function " + std::to_string(function) + " is off");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<driver::Case> cases = {
      {"shuffles", run_shuffles<int, 32>},
      {"shuffles among 16", run_shuffles<unsigned, 16>},
      {"shuffles among 8", run_shuffles<long, 8>},
      {"shuffles among 4", run_shuffles<unsigned long, 4>},
      {"shuffles among 2", run_shuffles<long long, 2>},
      {"shuffles among 1", run_shuffles<unsigned long long, 1>},
      {"shuffles of float", run_shuffles<float, 32>},
      {"shuffles of double", run_shuffles<double, 16>},
      {"shuffles in groups", run_shuffle_in_groups},
      {"votes", run_votes},
      {"votes of a block", run_block_votes},
      {"numbers of threads", run_number_threads},
      {"reduction over a block", run_reductions},
      {"statistics in 8 threads", run_statistics<8, float>},
      {"statistics in a warp", run_statistics<32, double>},
      {"statistics in a block", run_statistics<crnn::kRowBlockSize, float>},
      {"atomic additions of int", run_atomics<int>},
      {"atomic additions of unsigned", run_atomics<unsigned>},
      {"atomic additions of unsigned long long", run_atomics<unsigned long long>},
      {"atomic additions of float", run_atomics<float>},
      {"atomic additions of double", run_atomics<double>},
      {"exchange within a warp", run_exchange_in_warp},
      {"neighboring bytes", run_neighboring_bytes},
      {"functions of float", run_functions<float>},
      {"functions of double", run_functions<double>},
  };
  return driver::run(cases, argc, argv);
}
