// Vectors of numbers, and functions compiled for all that a CPU may have.

#ifndef ZOO_CPP_LANES_H_
#define ZOO_CPP_LANES_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "real.h"

#define INLINE inline __attribute__((always_inline))

namespace zoo {
inline namespace ZOO_KIND {

template <int n>
struct VectorsOf {
  typedef Real Reals __attribute__((vector_size(kSize * n)));
  typedef Whole Integers __attribute__((vector_size(kSize * n)));
  typedef int64_t Pairs __attribute__((vector_size(kSize * n)));  // of numbers in single precision
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
  INLINE Real* Reals(int64_t i = 0) { return reinterpret_cast<Real*>(entries_ + i); }
  INLINE void Clear(int64_t size) {
    std::memset(static_cast<void*>(entries_), 0, size * sizeof(T));
  }

 private:
  static constexpr std::align_val_t kAligned{64};
  T* entries_;
};

template <int n>
INLINE Lanes<n> Load(const Real* from, int64_t count = n) {
  Lanes<n> lanes = {};
  if (count >= n) {
    std::memcpy(&lanes, from, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(&lanes, from, count * kSize);
  }
  return lanes;
}

template <int n>
INLINE void Store(const Lanes<n>& lanes, Real* to, int64_t count = n) {
  if (count >= n) {
    std::memcpy(to, &lanes, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(to, &lanes, count * kSize);
  }
}

// Of groups of 2 `width` lanes the first or the second half, of a and then of b.
template <int n, int width, bool second, int... i>
INLINE Lanes<n> HalvesOf(const Lanes<n>& a, const Lanes<n>& b, std::integer_sequence<int, i...>) {
#define ZOO_LANE (i / (2 * width) * 2 * width + i % width + second * width + i / width % 2 * n)
#ifdef __clang__
  return __builtin_shufflevector(a, b, ZOO_LANE...);
#else
  return __builtin_shuffle(a, b, typename VectorsOf<n>::Integers{ZOO_LANE...});
#endif
#undef ZOO_LANE
}

// The sums of n vectors' lanes, each in a lane of its own.
template <int n, int width = n / 2>
INLINE Lanes<n> Sums(const Lanes<n>* vectors) {
  using All = std::make_integer_sequence<int, n>;
  Lanes<n> a = vectors[0], b = vectors[width];
  if constexpr (width > 1) {
    a = Sums<n, width / 2>(vectors);
    b = Sums<n, width / 2>(vectors + width);
  }
  return HalvesOf<n, width, false>(a, b, All()) + HalvesOf<n, width, true>(a, b, All());
}

// exp(x) to about one unit in the last place, x = n log 2 + r, by a polynomial in r. What numbers
// cannot hold becomes their smallest or their largest; NaN stays NaN.
#ifdef ZOO_DOUBLE
template <int n>
INLINE Lanes<n> Exp(Lanes<n> x) {
  using Reals = Lanes<n>;
  using Integers = typename VectorsOf<n>::Integers;
  x = x < -708.0 ? Reals{} - 708.0 : x;
  x = x > 709.0 ? Reals{} + 709.0 : x;
  const double round = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves no digits after the point
  const Reals shifted = x * 1.4426950408889634 + round;
  const Reals times = shifted - round;
  // log 2 in two parts, of which the first has so few digits that `times` of it are exact
  const Reals r = (x - times * 6.93145751953125e-1) - times * 1.42860682030941723212e-6;
  constexpr double kTaylor[] = {  // 1 / 13!, ..., 1 / 0!: what is left out is below 2^-57
      1.6059043836821613e-10, 2.08767569878681e-09,  2.505210838544172e-08, 2.755731922398589e-07,
      2.7557319223985893e-06, 2.48015873015873e-05,  1.984126984126984e-04, 1.388888888888889e-03,
      8.333333333333333e-03,  4.1666666666666664e-02, 1.6666666666666666e-01, 0.5, 1.0, 1.0};
  Reals p = Reals{} + kTaylor[0];
  for (int i = 1; i < 14; ++i) p = p * r + kTaylor[i];
  Integers power;  // the last digits of `shifted` are those of n
  std::memcpy(&power, &shifted, sizeof(power));
  power = (power + 1023) << 52;
  Reals scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}
#else
template <int n>  // by Cephes' polynomial
INLINE Lanes<n> Exp(Lanes<n> x) {
  using Reals = Lanes<n>;
  using Integers = typename VectorsOf<n>::Integers;
  x = x < -87.3f ? Reals{} - 87.3f : x;
  x = x > 88.3f ? Reals{} + 88.3f : x;
  const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves no digits after the point
  const Reals times = (x * 1.44269504088896341f + round) - round;
  const Reals r = (x - times * 0.693359375f) + times * 2.12194440e-4f;
  Reals p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Integers power = (__builtin_convertvector(times, Integers) + 127) << 23;
  Reals scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}
#endif

// Calls work.On<lanes>(), which has to be INLINE, as compiled for the widest vectors of this CPU.
// Vectors wider than those that a function is compiled for would be taken apart, number by number.
template <typename Work>
void OnNarrow(const Work& work) {
  work.template On<16 / kSize>();
}

#if defined(__x86_64__)

template <typename Work>
__attribute__((target("avx2,fma"))) void OnMiddle(const Work& work) {
  work.template On<32 / kSize>();
}

template <typename Work>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) void OnWide(
    const Work& work) {
  work.template On<64 / kSize>();
}

// Numbers in single precision of this CPU's widest vectors; COMPRESSM_LANES in the environment allows
// fewer.
inline int WidestLanes() {
  const char* said = std::getenv("COMPRESSM_LANES");
  const int most = said == nullptr ? 16 : std::atoi(said);
  const bool eight =
      most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool sixteen = most >= 16 && eight && __builtin_cpu_supports("avx512f") &&
                       __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return sixteen ? 16 : eight ? 8 : 4;
}

template <typename Work>
void OnWidest(const Work& work) {
  static const int lanes = WidestLanes();
  lanes == 16 ? OnWide(work) : lanes == 8 ? OnMiddle(work) : OnNarrow(work);
}

#else

template <typename Work>
void OnWidest(const Work& work) {
  OnNarrow(work);
}

#endif

}  // namespace ZOO_KIND
}  // namespace zoo

#endif  // ZOO_CPP_LANES_H_
