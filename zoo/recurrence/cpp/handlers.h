// What handlers of XLA take and give: a pool of cores, arrays, then settings by name.

#ifndef ZOO_CPP_HANDLERS_H_
#define ZOO_CPP_HANDLERS_H_

#include <utility>

#include "xla/ffi/api/ffi.h"

namespace zoo {

template <typename Array, int arguments, int results, typename Binding>
auto BoundFrom(Binding binding) {
  if constexpr (arguments > 0) {
    auto more = std::move(binding).template Arg<Array>();
    return BoundFrom<Array, arguments - 1, results>(std::move(more));
  } else if constexpr (results > 0) {
    auto more = std::move(binding).template Ret<Array>();
    return BoundFrom<Array, 0, results - 1>(std::move(more));
  } else {
    return binding;
  }
}

// The binding of a function of the pool and so many arrays to so many, in the order of its
// parameters; .Attr<T>("name") adds a setting.
template <typename Array, int arguments, int results>
auto Bound() {
  return BoundFrom<Array, arguments, results>(
      xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>());
}

}  // namespace zoo

#endif  // ZOO_CPP_HANDLERS_H_
