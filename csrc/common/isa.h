// Compiles one portable loop for several instruction sets and chooses among them at run time.
//
// A kernel is a struct with a static, always-inline run<kBytes>(), where kBytes is the vector size to use.
// run_vectorized<Kernel>(...) calls the version compiled for the best instruction set of this processor.
// ATEN_CPU_CAPABILITY (default, avx2, avx512), which limits torch's own kernels, limits these too.
#pragma once

#include <cstdlib>
#include <cstring>

namespace crnn {

enum class Isa { kBaseline, kAvx2, kAvx512 };

#if defined(__x86_64__) && defined(__GNUC__)
#define CRNN_TARGET_AVX2 __attribute__((target("arch=x86-64-v3")))
#define CRNN_TARGET_AVX512 __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))

inline Isa detect_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("x86-64-v3");
  const bool avx512 = __builtin_cpu_supports("x86-64-v4");
  const char* limit = std::getenv("ATEN_CPU_CAPABILITY");
  const bool at_most_baseline = limit != nullptr && std::strcmp(limit, "default") == 0;
  const bool at_most_avx2 = limit != nullptr && std::strcmp(limit, "avx2") == 0;
  if (!avx2 || at_most_baseline) return Isa::kBaseline;
  return avx512 && !at_most_avx2 ? Isa::kAvx512 : Isa::kAvx2;
}
#else
#define CRNN_TARGET_AVX2
#define CRNN_TARGET_AVX512

inline Isa detect_isa() {
  return Isa::kBaseline;
}
#endif

template <class Kernel, class... Args>
CRNN_TARGET_AVX512 void run_avx512(const Args&... args) {
  Kernel::template run<64>(args...);
}

template <class Kernel, class... Args>
CRNN_TARGET_AVX2 void run_avx2(const Args&... args) {
  Kernel::template run<32>(args...);
}

template <class Kernel, class... Args>
void run_baseline(const Args&... args) {
  Kernel::template run<16>(args...);
}

template <class Kernel, class... Args>
void run_vectorized(const Args&... args) {
  static const Isa isa = detect_isa();
  switch (isa) {
    case Isa::kAvx512:
      return run_avx512<Kernel>(args...);
    case Isa::kAvx2:
      return run_avx2<Kernel>(args...);
    case Isa::kBaseline:
      return run_baseline<Kernel>(args...);
  }
}

}  // namespace crnn
