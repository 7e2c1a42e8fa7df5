// Vectors of single precision numbers, and functions compiled for all that a CPU may have.

#ifndef ZOO_CPP_LANES_H_
#define ZOO_CPP_LANES_H_

#include <cstdint>
#include <cstring>
#include <new>

#define INLINE inline __attribute__((always_inline))

namespace zoo {

template <int n>
struct VectorsOf {
  typedef float Reals __attribute__((vector_size(4 * n)));
  typedef int32_t Integers __attribute__((vector_size(4 * n)));
  typedef int64_t Pairs __attribute__((vector_size(4 * n)));
};
template <int n>
using Lanes = typename VectorsOf<n>::Reals;

// Zeros, of vectors or what is made of them, aligned as those have to be, which a std::vector does
// not promise.
template <typename T>
class Room {
 public:
  explicit Room(int64_t size)
      : entries_(static_cast<T*>(::operator new(size * sizeof(T), kAligned))) {
    Clear(size);
  }
  ~Room() { ::operator delete(entries_, kAligned); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  INLINE T& operator[](int64_t i) { return entries_[i]; }
  INLINE float* Reals(int64_t i = 0) { return reinterpret_cast<float*>(entries_ + i); }
  INLINE void Clear(int64_t size) {
    std::memset(static_cast<void*>(entries_), 0, size * sizeof(T));
  }

 private:
  static constexpr std::align_val_t kAligned{64};
  T* entries_;
};

template <int n>
INLINE Lanes<n> Load(const float* from, int64_t count = n) {
  Lanes<n> lanes = {};
  if (count >= n) {
    std::memcpy(&lanes, from, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(&lanes, from, count * sizeof(float));
  }
  return lanes;
}

template <int n>
INLINE void Store(const Lanes<n>& lanes, float* to, int64_t count = n) {
  if (count >= n) {
    std::memcpy(to, &lanes, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(to, &lanes, count * sizeof(float));
  }
}

template <int n>
INLINE float Sum(const Lanes<n>& lanes) {
  float halves[n];
  std::memcpy(halves, &lanes, sizeof(lanes));
  for (int width = n / 2; width; width /= 2) {
    for (int i = 0; i < width; ++i) halves[i] += halves[i + width];
  }
  return halves[0];
}

// Calls work.On<lanes>(), which has to be INLINE, as compiled for the widest vectors of this CPU.
// Vectors wider than those that a function is compiled for would be taken apart, number by number.
template <typename Work>
void OnFour(const Work& work) {
  work.template On<4>();
}

#if defined(__x86_64__)

template <typename Work>
__attribute__((target("avx2,fma"))) void OnEight(const Work& work) {
  work.template On<8>();
}

template <typename Work>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) void OnSixteen(
    const Work& work) {
  work.template On<16>();
}

template <typename Work>
void OnWidest(const Work& work) {
  static const bool eight = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool sixteen =
      eight && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  sixteen ? OnSixteen(work) : eight ? OnEight(work) : OnFour(work);
}

#else

template <typename Work>
void OnWidest(const Work& work) {
  OnFour(work);
}

#endif

}  // namespace zoo

#endif  // ZOO_CPP_LANES_H_
