// One sample of the scans of Mamba and Mamba-2 on the cores of a CPU, as XLA calls it (typed FFI).
//
// The states are read and written once, where they lie. XLA's program passes over them three or
// four times, on one core. Python's side: compiled.py.

#include <cmath>

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kBlock = 64;  // channels of a part

// h <- exp(dt A) h + dt x B, y = C h: for each channel N states, that lie side by side.
struct Step {
  int64_t channels, N;
  int64_t each;    // neighbouring channels that share dt and A: those of a head
  int64_t shared;  // and those that share B and C: those of a group
  int64_t decays;  // decays of a head: one for each of N states, or one for all
  const float *x, *dt, *A, *B, *C;
  const float* before;
  float *y, *h;
  int64_t blocks, part;

  template <int n>
  INLINE float Channel(int64_t b, int64_t d) const {
    const int64_t head = d / each, heads = channels / each;
    const int64_t group = d / shared, groups = channels / shared;
    const float step = dt[b * heads + head], drive = step * x[b * channels + d];
    const float *a = A + head * decays, *B_ = B + (b * groups + group) * N,
                *C_ = C + (b * groups + group) * N;
    const float* from = before + (b * channels + d) * N;
    float* to = h + (b * channels + d) * N;
    const float decay = decays == 1 ? std::exp(step * a[0]) : 0.0f;
    zoo::Lanes<n> sum = {};
    for (int64_t i = 0; i < N; i += n) {
      const int64_t count = N - i;
      zoo::Lanes<n> state = zoo::Load<n>(from + i, count);
      if (decays == 1) {
        state *= decay;
      } else {
        state *= zoo::Exp<n>(step * zoo::Load<n>(a + i, count));
      }
      state += drive * zoo::Load<n>(B_ + i, count);
      zoo::Store<n>(state, to + i, count);
      sum += state * zoo::Load<n>(C_ + i, count);
    }
    float lanes[n];
    zoo::Store<n>(sum, lanes);
    for (int width = n / 2; width; width /= 2) {
      for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    }
    return lanes[0];
  }

  template <int n>
  INLINE void All() const {
    const int64_t b = part / blocks, begin = part % blocks * kBlock;
    const int64_t end = std::min(begin + kBlock, channels);
    for (int64_t d = begin; d < end; ++d) y[b * channels + d] = Channel<n>(b, d);
  }

  template <int n>
  INLINE void On() const {
    if (n > 4 && N <= 4) {
      All<4>();
    } else if (n > 8 && N <= 8) {
      All<8>();
    } else {
      All<n>();
    }
  }
};

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

ffi::Error RunStep(ffi::ThreadPool pool, Floats x, Floats dt, Floats A, Floats B, Floats C,
                   Floats h0, Result y, Result h) {
  const auto of_h = h0.dimensions(), of_A = A.dimensions(), of_B = B.dimensions();
  if (of_h.size() != 3 || of_A.size() != 2 || of_B.size() != 3 || of_h[1] % of_A[0] ||
      of_h[1] % of_B[1]) {
    return ffi::Error::InvalidArgument("A [heads N or 1], B, C [b groups N], h [b d N]");
  }
  Step step;
  step.channels = of_h[1];
  step.N = of_h[2];
  step.each = of_h[1] / of_A[0];
  step.shared = of_h[1] / of_B[1];
  step.decays = of_A[1];
  step.x = x.typed_data();
  step.dt = dt.typed_data();
  step.A = A.typed_data();
  step.B = B.typed_data();
  step.C = C.typed_data();
  step.before = h0.typed_data();
  step.y = y->typed_data();
  step.h = h->typed_data();
  step.blocks = (step.channels + kBlock - 1) / kBlock;
  const int64_t threads = zoo::Threads(pool, h0.element_count());
  zoo::Share(pool, of_h[0] * step.blocks, threads, [step](int64_t part) {
    Step own = step;
    own.part = part;
    zoo::OnWidest(own);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_step, RunStep,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()   // x
                                  .Arg<Floats>()   // dt
                                  .Arg<Floats>()   // A
                                  .Arg<Floats>()   // B
                                  .Arg<Floats>()   // C
                                  .Arg<Floats>()   // h0
                                  .Ret<Floats>()   // y
                                  .Ret<Floats>());  // h
