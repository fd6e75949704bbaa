// Device memory, allocated on the host, and atomicAdd, which is a plain addition because only one thread runs
// at a time.
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime/checker.h"
#include "runtime/cuda.h"
#include "runtime/shared_memory.h"

using cuda_on_host::checker;

namespace {

// Always inlined: the return address must lie in the kernel.
template <class T>
__attribute__((always_inline)) inline T fetch_add(T* address, T value) {
  if (checker != nullptr) checker->on_atomic(address, sizeof(T), __builtin_return_address(0));
  const T before = *address;
  *address = before + value;
  return before;
}

}  // namespace

int atomicAdd(int* address, int value) {
  return fetch_add(address, value);
}

unsigned atomicAdd(unsigned* address, unsigned value) {
  return fetch_add(address, value);
}

unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  return fetch_add(address, value);
}

float atomicAdd(float* address, float value) {
  return fetch_add(address, value);
}

double atomicAdd(double* address, double value) {
  return fetch_add(address, value);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  if (*memory == nullptr && bytes > 0) return cudaErrorMemoryAllocation;
  cuda_on_host::fill_uninitialized(*memory, bytes);
  if (checker != nullptr) checker->on_alloc(*memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (checker != nullptr) checker->on_free(memory, malloc_usable_size(memory));
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (checker != nullptr) {
    const size_t uninitialized = checker->first_uninitialized(from, bytes);
    if (uninitialized < bytes)
      throw cuda_on_host::Error("cudaMemcpy reads uninitialized memory: byte " +
                                std::to_string(uninitialized) + " of " + std::to_string(bytes));
    checker->on_host_write(to, bytes);
  }
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* memory, int byte, size_t bytes) {
  if (bytes > 0) std::memset(memory, byte, bytes);
  if (checker != nullptr) checker->on_host_write(memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "out of memory";
}
