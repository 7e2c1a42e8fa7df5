// The selective scan of Mamba and its gradient on the cores of a CPU, as XLA calls them.
//
// For each channel d with states n,
//
//     h_k[n, d] = exp(dt_k[d] A[n, d]) h_{k-1}[n, d] + B_k[n] dt_k[d] x_k[d]
//     y_k[d] = sum_n C_k[n] h_k[n, d]
//
// (Gu & Dao, arXiv 2312.00752, algorithm 2). A core goes through the samples of a block of channels
// of one sequence, whose states stay in its cache. Of every `chunk`-th sample the states before it
// are kept; the gradient makes the others again, one chunk at a time, from the last one on.
// Python's side: zoo/compiled.py.

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

using zoo::Lanes;
using zoo::Load;
using zoo::Room;
using zoo::Store;
using zoo::Sum;

constexpr int64_t kWidest = 64;  // channels of a block, at most

// exp(x) to about one unit in the last place, x = n log 2 + r, by a polynomial in r (Cephes). What
// single precision cannot hold becomes its smallest or its largest numbers; NaN stays NaN.
template <int n>
INLINE Lanes<n> Exp(Lanes<n> x) {
  using Reals = Lanes<n>;
  using Integers = typename zoo::VectorsOf<n>::Integers;
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

// Sizes, and where the block of one part begins.
struct Scan {
  int64_t sequences, L, d, N, per_A, chunk, chunks, width, blocks, threads;

  struct Place {
    int64_t sequence, channel, count;
  };
  Place Find(int64_t part) const {
    const int64_t channel = part % blocks * width;
    return {part / blocks, channel, std::min(width, d - channel)};
  }
};

struct Forward {
  const float *A, *x, *dt, *B, *C, *h0;
  float *y, *last, *before;
};

template <int lanes>
INLINE void OutputsOf(const Scan& scan, const Forward& f, int64_t part) {
  using Reals = Lanes<lanes>;
  const auto at = scan.Find(part);
  const int64_t N = scan.N, d = scan.d, units = (at.count + lanes - 1) / lanes;
  Room<Reals> h(N * units), A(N * units), y(units), dt(units), v(units);
  const float* A_ = f.A + at.sequence / scan.per_A * N * d + at.channel;
  const float* h0 = f.h0 + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[n * units + u] = Load<lanes>(A_ + n * d + u * lanes, at.count - u * lanes);
      h[n * units + u] = Load<lanes>(h0 + n * d + u * lanes, at.count - u * lanes);
    }
  }
  for (int64_t k = 0; k < scan.L; ++k) {
    if (k % scan.chunk == 0) {
      float* kept = f.before + (at.sequence * scan.chunks + k / scan.chunk) * N * d + at.channel;
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t u = 0; u < units; ++u) {
          Store<lanes>(h[n * units + u], kept + n * d + u * lanes, at.count - u * lanes);
        }
      }
    }
    const int64_t row = (at.sequence * scan.L + k) * d + at.channel;
    const float* B = f.B + (at.sequence * scan.L + k) * N;
    const float* C = f.C + (at.sequence * scan.L + k) * N;
    for (int64_t u = 0; u < units; ++u) {
      dt[u] = Load<lanes>(f.dt + row + u * lanes, at.count - u * lanes);
      v[u] = dt[u] * Load<lanes>(f.x + row + u * lanes, at.count - u * lanes);
      y[u] = Reals{};
    }
    for (int64_t u = 0; u < units; ++u) {
      const Reals dt_u = dt[u], v_u = v[u];
      Reals y_u = {};
      for (int64_t n = 0; n < N; ++n) {
        const Reals after = Exp<lanes>(dt_u * A[n * units + u]) * h[n * units + u] + v_u * B[n];
        y_u += after * C[n];
        h[n * units + u] = after;
      }
      y[u] = y_u;
    }
    for (int64_t u = 0; u < units; ++u) {
      Store<lanes>(y[u], f.y + row + u * lanes, at.count - u * lanes);
    }
  }
  float* last = f.last + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store<lanes>(h[n * units + u], last + n * d + u * lanes, at.count - u * lanes);
    }
  }
}

struct Backward {
  const float *A, *x, *dt, *B, *C, *before, *dy, *dlast;
  float *dA, *dx, *ddt, *dB, *dC, *dh0;
};

// With g_k the cotangent of h_k, a_k the decay: g_k = C_k dy_k + a_{k+1} g_{k+1}. Then
// dC_k = sum_d dy_k h_k, dB_k = sum_d g_k (dt x)_k, d(dt x)_k = sum_n B_k g_k, and through the
// decay, with p_k = g_k a_k h_{k-1}: d(dt)_k = sum_n A p_k, dA = sum_k dt_k p_k.
template <int lanes>
INLINE void GradientsOf(const Scan& scan, const Backward& b, int64_t part) {
  using Reals = Lanes<lanes>;
  const auto at = scan.Find(part);
  const int64_t N = scan.N, d = scan.d, units = (at.count + lanes - 1) / lanes, size = N * units;
  Room<Reals> A(size), dA(size), later(size), states((scan.chunk + 1) * size),
      decay(scan.chunk * size);
  Room<Reals> dt(scan.chunk * units), v(scan.chunk * units);
  const float* A_ = b.A + at.sequence / scan.per_A * N * d + at.channel;
  const float* dlast = b.dlast + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[u * N + n] = Load<lanes>(A_ + n * d + u * lanes, at.count - u * lanes);
      later[u * N + n] = Load<lanes>(dlast + n * d + u * lanes, at.count - u * lanes);
    }
  }
  for (int64_t c = scan.chunks - 1; c >= 0; --c) {
    const int64_t begin = c * scan.chunk, T = std::min(scan.chunk, scan.L - begin);
    const float* kept = b.before + (at.sequence * scan.chunks + c) * N * d + at.channel;
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t u = 0; u < units; ++u) {
        states[u * N + n] = Load<lanes>(kept + n * d + u * lanes, at.count - u * lanes);
      }
    }
    for (int64_t t = 0; t < T; ++t) {
      const int64_t sample = at.sequence * scan.L + begin + t, row = sample * d + at.channel;
      const float* B = b.B + sample * N;
      for (int64_t u = 0; u < units; ++u) {
        const Reals dt_u = Load<lanes>(b.dt + row + u * lanes, at.count - u * lanes);
        const Reals v_u = dt_u * Load<lanes>(b.x + row + u * lanes, at.count - u * lanes);
        dt[t * units + u] = dt_u;
        v[t * units + u] = v_u;
        const Reals* h = &states[t * size + u * N];
        Reals* after = &states[(t + 1) * size + u * N];
        Reals* a = &decay[t * size + u * N];
        for (int64_t n = 0; n < N; ++n) {
          a[n] = Exp<lanes>(dt_u * A[u * N + n]);
          after[n] = a[n] * h[n] + v_u * B[n];
        }
      }
    }
    for (int64_t t = T - 1; t >= 0; --t) {
      const int64_t sample = at.sequence * scan.L + begin + t, row = sample * d + at.channel;
      const float *B = b.B + sample * N, *C = b.C + sample * N;
      const int64_t partial =
          ((at.sequence * scan.blocks + part % scan.blocks) * scan.L + begin + t) * N;
      Reals dy[kWidest / lanes], dv[kWidest / lanes], ddt[kWidest / lanes];
      for (int64_t u = 0; u < units; ++u) {
        dy[u] = Load<lanes>(b.dy + row + u * lanes, at.count - u * lanes);
        dv[u] = ddt[u] = Reals{};
      }
      for (int64_t n = 0; n < N; ++n) {
        Reals dB = {}, dC = {};
        for (int64_t u = 0; u < units; ++u) {
          const int64_t i = u * N + n;
          const Reals g = later[i] + dy[u] * C[n], next = decay[t * size + i] * g;
          const Reals p = next * states[t * size + i];
          dC += dy[u] * states[(t + 1) * size + i];
          dB += g * v[t * units + u];
          dv[u] += g * B[n];
          ddt[u] += A[i] * p;
          dA[i] += dt[t * units + u] * p;
          later[i] = next;
        }
        b.dB[partial + n] = Sum<lanes>(dB);
        b.dC[partial + n] = Sum<lanes>(dC);
      }
      for (int64_t u = 0; u < units; ++u) {
        const Reals x = Load<lanes>(b.x + row + u * lanes, at.count - u * lanes);
        Store<lanes>(dt[t * units + u] * dv[u], b.dx + row + u * lanes, at.count - u * lanes);
        Store<lanes>(ddt[u] + x * dv[u], b.ddt + row + u * lanes, at.count - u * lanes);
      }
    }
  }
  const int64_t to = at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store<lanes>(dA[u * N + n], b.dA + to + n * d + u * lanes, at.count - u * lanes);
      Store<lanes>(later[u * N + n], b.dh0 + to + n * d + u * lanes, at.count - u * lanes);
    }
  }
}

struct Outputs {
  const Scan& scan;
  const Forward& arrays;
  int64_t part;

  template <int lanes>
  INLINE void On() const {
    OutputsOf<lanes>(scan, arrays, part);
  }
};

struct Gradients {
  const Scan& scan;
  const Backward& arrays;
  int64_t part;

  template <int lanes>
  INLINE void On() const {
    GradientsOf<lanes>(scan, arrays, part);
  }
};

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

// Of A [.. N d] and x [.. L d].
ffi::ErrorOr<Scan> Describe(ffi::ThreadPool& pool, const Floats& A, const Floats& x, int64_t chunk,
                            int64_t width) {
  const auto of_A = A.dimensions(), of_x = x.dimensions();
  if (of_A.size() < 2 || of_x.size() < 2 || of_A.back() != of_x.back() || chunk < 1 || width < 16 ||
      width > kWidest || width % 16) {
    return ffi::Unexpected(ffi::Error::InvalidArgument("A [.. N d], x [.. L d], width 16 to 64"));
  }
  Scan scan;
  scan.L = of_x[of_x.size() - 2];
  scan.N = of_A[of_A.size() - 2];
  scan.d = of_x.back();
  scan.sequences = x.element_count() / std::max<int64_t>(scan.L * scan.d, 1);
  const int64_t models = A.element_count() / std::max<int64_t>(scan.N * scan.d, 1);
  scan.per_A = std::max<int64_t>(scan.sequences / std::max<int64_t>(models, 1), 1);
  scan.chunk = chunk;
  scan.chunks = (scan.L + chunk - 1) / chunk;
  scan.width = width;
  scan.blocks = (scan.d + width - 1) / width;
  scan.threads = zoo::Threads(pool, x.element_count() * scan.N);
  return scan;
}

ffi::Error RunOutputs(ffi::ThreadPool pool, Floats A, Floats x, Floats dt, Floats B, Floats C,
                      Floats h0, Result y, Result last, Result before, int64_t chunk,
                      int64_t width) {
  auto scan = Describe(pool, A, x, chunk, width);
  if (scan.has_error()) return scan.error();
  const Forward f = {A.typed_data(),  x.typed_data(),     dt.typed_data(),
                     B.typed_data(),  C.typed_data(),     h0.typed_data(),
                     y->typed_data(), last->typed_data(), before->typed_data()};
  zoo::Share(pool, scan->sequences * scan->blocks, scan->threads, [f, scan = *scan](int64_t part) {
    zoo::OnWidest(Outputs{scan, f, part});
  });
  return ffi::Error::Success();
}

ffi::Error RunGradients(ffi::ThreadPool pool, Floats A, Floats x, Floats dt, Floats B, Floats C,
                        Floats before, Floats dy, Floats dlast, Result dA, Result dx, Result ddt,
                        Result dB, Result dC, Result dh0, int64_t chunk, int64_t width) {
  auto scan = Describe(pool, A, x, chunk, width);
  if (scan.has_error()) return scan.error();
  const Backward b = {A.typed_data(),   x.typed_data(),      dt.typed_data(),   B.typed_data(),
                      C.typed_data(),   before.typed_data(), dy.typed_data(),   dlast.typed_data(),
                      dA->typed_data(), dx->typed_data(),    ddt->typed_data(), dB->typed_data(),
                      dC->typed_data(), dh0->typed_data()};
  zoo::Share(pool, scan->sequences * scan->blocks, scan->threads, [b, scan = *scan](int64_t part) {
    zoo::OnWidest(Gradients{scan, b, part});
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_outputs, RunOutputs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()  // A
                                  .Arg<Floats>()  // x
                                  .Arg<Floats>()  // dt
                                  .Arg<Floats>()  // B
                                  .Arg<Floats>()  // C
                                  .Arg<Floats>()  // h0
                                  .Ret<Floats>()  // y
                                  .Ret<Floats>()  // last
                                  .Ret<Floats>()  // before
                                  .Attr<int64_t>("chunk")
                                  .Attr<int64_t>("width"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_gradients, RunGradients,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()  // A
                                  .Arg<Floats>()  // x
                                  .Arg<Floats>()  // dt
                                  .Arg<Floats>()  // B
                                  .Arg<Floats>()  // C
                                  .Arg<Floats>()  // before
                                  .Arg<Floats>()  // dy
                                  .Arg<Floats>()  // dlast
                                  .Ret<Floats>()  // dA
                                  .Ret<Floats>()  // dx
                                  .Ret<Floats>()  // ddt
                                  .Ret<Floats>()  // dB
                                  .Ret<Floats>()  // dC
                                  .Ret<Floats>()  // dh0
                                  .Attr<int64_t>("chunk")
                                  .Attr<int64_t>("width"));
