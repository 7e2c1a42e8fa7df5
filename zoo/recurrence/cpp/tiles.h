// Products of matrices by the tiles of a CPU (AMX): factors in bfloat16, sums in single precision.

#ifndef ZOO_CPP_TILES_H_
#define ZOO_CPP_TILES_H_

// GCC and Clang know tiles from these versions on; the system has to grant their use.
#if defined(__x86_64__) && defined(__linux__)
#if defined(__clang__)
#define ZOO_TILES (__clang_major__ >= 12)
#elif defined(__GNUC__)
#define ZOO_TILES (__GNUC__ >= 11)
#endif
#endif

#if ZOO_TILES

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes.h"

#define ZOO_FOR_TILES \
  target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define TILED inline __attribute__((always_inline, ZOO_FOR_TILES))

namespace zoo {

using Half = uint16_t;  // bfloat16, the upper half of a single precision number

constexpr int64_t kTile = 16;   // rows of a tile, and its numbers in single precision
constexpr int64_t kDepth = 32;  // its numbers in bfloat16

INLINE int64_t RoundUp(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

// The nearest one, ties to even.
INLINE Half Rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<Half>(bits >> 16 | 0x40);  // NaN
  return static_cast<Half>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Whether this process may use tiles.
inline bool HasTiles() {
  static const bool has = [] {
    unsigned a, b, c, d, more;
    if (WidestLanes() < 16 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool tiles = (d >> 22 & 1) && (d >> 24 & 1);
    if (!tiles || !__get_cpuid_count(7, 1, &more, &b, &c, &d) || !(more >> 5 & 1)) return false;
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return has;
}

// Tiles of full size on this core, for as long as it exists.
class Tiles {
 public:
  TILED Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, none[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) {
      shape.bytes[i] = 64;
      shape.rows[i] = kTile;
    }
    _tile_loadconfig(&shape);
  }
  TILED ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// A matrix where it lies, with the bytes from one row to the next.
struct Matrix {
  char* at;
  int64_t stride;

  INLINE Matrix(void* at, int64_t stride) : at(static_cast<char*>(at)), stride(stride) {}
  INLINE char* Tile(int64_t row, int64_t column) const {
    return at + row * kTile * stride + column * 64;
  }
};

// One or two tiles by one or two of a sum.
template <int rows, int columns>
TILED void Multiply(const Matrix& a, const Matrix& b, int64_t depth, const Matrix& sum, int64_t i,
                    int64_t j, bool add) {
  if (add) {
    _tile_loadd(0, sum.Tile(i, j), sum.stride);
    if constexpr (columns > 1) _tile_loadd(1, sum.Tile(i, j + 1), sum.stride);
    if constexpr (rows > 1) _tile_loadd(2, sum.Tile(i + 1, j), sum.stride);
    if constexpr (rows > 1 && columns > 1) _tile_loadd(3, sum.Tile(i + 1, j + 1), sum.stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < depth; ++k) {
    _tile_loadd(4, a.Tile(i, k), a.stride);
    if constexpr (rows > 1) _tile_loadd(5, a.Tile(i + 1, k), a.stride);
    _tile_loadd(6, b.Tile(k, j), b.stride);
    if constexpr (columns > 1) _tile_loadd(7, b.Tile(k, j + 1), b.stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (columns > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (rows > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (rows > 1 && columns > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sum.Tile(i, j), sum.stride);
  if constexpr (columns > 1) _tile_stored(1, sum.Tile(i, j + 1), sum.stride);
  if constexpr (rows > 1) _tile_stored(2, sum.Tile(i + 1, j), sum.stride);
  if constexpr (rows > 1 && columns > 1) _tile_stored(3, sum.Tile(i + 1, j + 1), sum.stride);
}

// sum = a b, or sum += a b. Sizes are in tiles: `rows` and `columns` of the sum, `depth` of the
// factors. Rows of `a` are numbers in bfloat16; those of `b` are pairs of its rows, with the two
// numbers of a column beside one another.
TILED void Multiply(const Matrix& a, const Matrix& b, const Matrix& sum, int64_t rows,
                    int64_t depth, int64_t columns, bool add) {
  __asm__ volatile("" ::: "memory");  // tiles are read and written unseen by the compiler
  int64_t i = 0;
  for (; i + 2 <= rows; i += 2) {
    int64_t j = 0;
    for (; j + 2 <= columns; j += 2) Multiply<2, 2>(a, b, depth, sum, i, j, add);
    if (j < columns) Multiply<2, 1>(a, b, depth, sum, i, j, add);
  }
  if (i < rows) {
    int64_t j = 0;
    for (; j + 2 <= columns; j += 2) Multiply<1, 2>(a, b, depth, sum, i, j, add);
    if (j < columns) Multiply<1, 1>(a, b, depth, sum, i, j, add);
  }
  __asm__ volatile("" ::: "memory");
}

// 32 numbers, the first 16 before the second.
TILED __m512i Narrowed(const Lanes<16>& first, const Lanes<16>& second) {
  return reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
}

// The numbers of two rows beside one another, as `Multiply` has rows of its second factor.
TILED void StorePairs(const __m512i& row, const __m512i& next, Half* to) {
  alignas(64) static constexpr uint16_t kFirst[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                      37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                      11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(kFirst);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(row, first, next));
  _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(row, second, next));
}

}  // namespace zoo

#endif  // ZOO_TILES
#endif  // ZOO_CPP_TILES_H_
