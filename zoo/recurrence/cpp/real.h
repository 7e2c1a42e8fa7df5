// The numbers that a kernel is for. Each of its files is compiled twice: by itself for single
// precision, and included by `*_double.cc` for double precision.

#ifndef ZOO_CPP_REAL_H_
#define ZOO_CPP_REAL_H_

#include <cstdint>

#include "xla/ffi/api/ffi.h"

#ifdef ZOO_DOUBLE
#define ZOO_KIND f64
#define ZOO_NAMED(name) name##_f64
#else
#define ZOO_KIND f32
#define ZOO_NAMED(name) name
#endif

namespace zoo {
// What is made of them has another name for each kind, for the linker to keep apart.
inline namespace ZOO_KIND {

#ifdef ZOO_DOUBLE
using Real = double;
using Whole = int64_t;  // as wide
constexpr auto kReal = xla::ffi::F64;
#else
using Real = float;
using Whole = int32_t;
constexpr auto kReal = xla::ffi::F32;
#endif
constexpr int kSize = sizeof(Real);

}  // namespace ZOO_KIND
}  // namespace zoo

#endif  // ZOO_CPP_REAL_H_
