// What kernels of a linear time-invariant system share: sizes, complex numbers in lanes, where
// arrays have their numbers, and how XLA calls them.

#ifndef ZOO_CPP_LTI_H_
#define ZOO_CPP_LTI_H_

#include <numeric>

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace zoo {
inline namespace ZOO_KIND {

// Sizes, and what a task is: some sequences, and some units of states.
struct Sizes {
  int64_t sequences, L, m, p, n, chunk, chunks, groups, parts, threads;

  struct Task {
    int64_t group, part, sequence, after_sequences, state, states, units;
  };
  template <int lanes>
  INLINE Task Find(int64_t i) const {
    Task task;
    task.group = i / parts;
    task.part = i % parts;
    task.sequence = sequences * task.group / groups;
    task.after_sequences = sequences * (task.group + 1) / groups;
    const int64_t units = (n + lanes - 1) / lanes, unit = units * task.part / parts;
    task.units = units * (task.part + 1) / parts - unit;
    task.state = unit * lanes;
    task.states = std::min(task.units * lanes, n - task.state);
    return task;
  }
};

// Where an array of all states has `count` numbers for the real and for the imaginary part of each:
// how far apart parts, states, and entries are.
struct Places {
  int64_t part, state, entry, count;
};

using Floats = ffi::Buffer<kReal>;

struct Forward {
  const Real *lam, *B, *C, *u, *x0;
  const Copies& y;
  Real *last, *before;
};

struct Backward {
  const Real *lam, *B, *C, *u, *before, *dy, *dlast;
  const Copies &dlam, &dB, &dC, &du;
  Real* dx0;
};

// A complex number in each lane: states of a unit, their cotangents, their weights.
template <int lanes>
struct ComplexLanes {
  using Reals = Lanes<lanes>;
  Reals re, im;

  INLINE void AddProduct(const ComplexLanes& x, Real each) {
    re += x.re * each;
    im += x.im * each;
  }
  // x <- lam x + driven. From one x to the next there are but two multiplications and additions.
  INLINE void Advance(const ComplexLanes& lam, const ComplexLanes& driven) {
    const Reals before = re;
    re = lam.re * before + (driven.re - lam.im * im);
    im = lam.re * im + (driven.im + lam.im * before);
  }
  // x <- conjugate of lam (x + driven), likewise.
  INLINE void Retreat(const ComplexLanes& lam, const ComplexLanes& driven) {
    const Reals before = re;
    re = lam.re * before + (lam.im * im + (lam.re * driven.re + lam.im * driven.im));
    im = lam.re * im + ((lam.re * driven.im - lam.im * driven.re) - lam.im * before);
  }
};

// How many real numbers a unit of states has.
template <int lanes>
constexpr int64_t kRealsOf = 2 * lanes;

// each(i, unit, j, lane, part) for every number i of an array, which is entry j of that lane of a
// unit's real and imaginary parts.
template <int lanes, typename Each>
INLINE void ForEach(const Sizes::Task& task, const Places& at, Each each) {
  for (int64_t part = 0; part < 2; ++part) {
    for (int64_t state = 0; state < task.states; ++state) {
      const int64_t from = part * at.part + (task.state + state) * at.state;
      const int64_t unit = state / lanes, lane = part * lanes + state % lanes;
      for (int64_t j = 0; j < at.count; ++j) each(from + j * at.entry, unit, j, lane, part);
    }
  }
}

// A sequence's states, [2 n] real numbers, to units and back.
template <int lanes>
INLINE void ReadStates(const Sizes& s, const Sizes::Task& task, const Real* from,
                       Room<ComplexLanes<lanes>>& to) {
  for (int64_t k = 0; k < task.units; ++k) {
    const int64_t state = task.state + k * lanes;
    to[k].re = Load<lanes>(from + state, s.n - state);
    to[k].im = Load<lanes>(from + s.n + state, s.n - state);
  }
}

template <int lanes>
INLINE void WriteStates(const Sizes& s, const Sizes::Task& task, Room<ComplexLanes<lanes>>& from,
                        Real* to) {
  for (int64_t k = 0; k < task.units; ++k) {
    const int64_t state = task.state + k * lanes;
    Store<lanes>(from[k].re, to + state, s.n - state);
    Store<lanes>(from[k].im, to + s.n + state, s.n - state);
  }
}

// All tasks, each by How::Run(sizes, arrays, task).
template <typename How, typename Arrays>
void RunAll(ffi::ThreadPool& pool, const Sizes& sizes, const Arrays& arrays) {
  Share(pool, sizes.groups * sizes.parts, sizes.threads,
        [&](int64_t task) { How::Run(sizes, arrays, task); });
}

using Result = ffi::Result<Floats>;

// Of B [2 n m], C [2 p n] and u [b L m]. The work is shared out among groups of sequences, up to
// `each` for a core, and parts of states.
inline ffi::ErrorOr<Sizes> Describe(ffi::ThreadPool& pool, const Floats& B, const Floats& C,
                                    const Floats& u, int64_t chunk, int64_t each) {
  const auto of_B = B.dimensions(), of_C = C.dimensions(), of_u = u.dimensions();
  if (of_B.size() != 3 || of_C.size() != 3 || of_u.size() != 3 || of_B[2] != of_u[2] ||
      of_B[1] != of_C[2] || chunk < 1) {
    return ffi::Unexpected(ffi::Error::InvalidArgument("B [2 n m], C [2 p n], u [b L m]"));
  }
  Sizes s;
  s.sequences = of_u[0];
  s.L = of_u[1];
  s.m = of_u[2];
  s.p = of_C[1];
  s.n = of_B[1];
  s.chunk = chunk;
  s.chunks = (s.L + chunk - 1) / chunk;
  s.threads = Threads(pool, s.sequences * s.L * s.n);
  s.groups = std::clamp<int64_t>(s.sequences, 1, each * s.threads);
  s.parts = std::clamp<int64_t>(s.n / 16, 1, s.threads / std::gcd(s.groups, s.threads));
  return s;
}

template <typename How>
ffi::Error RunOutputs(ffi::ThreadPool pool, Floats lam, Floats B, Floats C, Floats u, Floats x0,
                      Result y, Result last, Result before, int64_t chunk) {
  auto sizes = Describe(pool, B, C, u, chunk, How::kGroups);
  if (sizes.has_error()) return sizes.error();
  const Copies y_(y, sizes->parts);
  const Forward f = {lam.typed_data(),   B.typed_data(),      C.typed_data(),
                     u.typed_data(),     x0.typed_data(),     y_,
                     last->typed_data(), before->typed_data()};
  RunAll<How>(pool, *sizes, f);
  y_.AddUp(pool);
  return ffi::Error::Success();
}

template <typename How>
ffi::Error RunGradients(ffi::ThreadPool pool, Floats lam, Floats B, Floats C, Floats u,
                        Floats before, Floats dy, Floats dlast, Result dlam, Result dB, Result dC,
                        Result du, Result dx0, int64_t chunk) {
  auto sizes = Describe(pool, B, C, u, chunk, How::kGroups);
  if (sizes.has_error()) return sizes.error();
  const int64_t groups = sizes->groups;
  const Copies dlam_(dlam, groups), dB_(dB, groups), dC_(dC, groups), du_(du, sizes->parts);
  const Backward b = {lam.typed_data(),
                      B.typed_data(),
                      C.typed_data(),
                      u.typed_data(),
                      before.typed_data(),
                      dy.typed_data(),
                      dlast.typed_data(),
                      dlam_,
                      dB_,
                      dC_,
                      du_,
                      dx0->typed_data()};
  RunAll<How>(pool, *sizes, b);
  for (const Copies* each : {&dlam_, &dB_, &dC_, &du_}) each->AddUp(pool);
  return ffi::Error::Success();
}

}  // namespace ZOO_KIND
}  // namespace zoo

// Handlers by names, of kernels that `How` runs.
#define ZOO_LTI_OUTPUTS(symbol, How)                                 \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(symbol, zoo::RunOutputs<How>,        \
                                ffi::Ffi::Bind()                     \
                                    .Ctx<ffi::ThreadPool>()          \
                                    .Arg<zoo::Floats>() /* lam */    \
                                    .Arg<zoo::Floats>() /* B */      \
                                    .Arg<zoo::Floats>() /* C */      \
                                    .Arg<zoo::Floats>() /* u */      \
                                    .Arg<zoo::Floats>() /* x0 */     \
                                    .Ret<zoo::Floats>() /* y */      \
                                    .Ret<zoo::Floats>() /* last */   \
                                    .Ret<zoo::Floats>() /* before */ \
                                    .Attr<int64_t>("chunk"));

#define ZOO_LTI_GRADIENTS(symbol, How)                               \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(symbol, zoo::RunGradients<How>,      \
                                ffi::Ffi::Bind()                     \
                                    .Ctx<ffi::ThreadPool>()          \
                                    .Arg<zoo::Floats>() /* lam */    \
                                    .Arg<zoo::Floats>() /* B */      \
                                    .Arg<zoo::Floats>() /* C */      \
                                    .Arg<zoo::Floats>() /* u */      \
                                    .Arg<zoo::Floats>() /* before */ \
                                    .Arg<zoo::Floats>() /* dy */     \
                                    .Arg<zoo::Floats>() /* dlast */  \
                                    .Ret<zoo::Floats>() /* dlam */   \
                                    .Ret<zoo::Floats>() /* dB */     \
                                    .Ret<zoo::Floats>() /* dC */     \
                                    .Ret<zoo::Floats>() /* du */     \
                                    .Ret<zoo::Floats>() /* dx0 */    \
                                    .Attr<int64_t>("chunk"));

#endif  // ZOO_CPP_LTI_H_
