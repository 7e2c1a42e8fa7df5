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
// Python's side: compiled.py.

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

using zoo::Copies;
using zoo::Exp;
using zoo::Lanes;
using zoo::Load;
using zoo::Real;
using zoo::Room;
using zoo::Store;
using zoo::Sums;

constexpr int64_t kWidest = 64;    // channels of a block, at most
constexpr int64_t kTogether = 16;  // states of each that the gradient treats at once

// Sizes, and where the block of one part begins.
struct Scan {
  int64_t sequences, L, d, N, chunk, chunks, width, blocks, threads;

  struct Place {
    int64_t sequence, block, channel, count;
  };
  Place Find(int64_t part) const {
    const int64_t block = part % blocks, channel = block * width;
    return {part / blocks, block, channel, std::min(width, d - channel)};
  }
};

struct Forward {
  const Real *A, *x, *dt, *B, *C, *h0;
  Real *y, *last, *before;
};

template <int lanes>
INLINE void OutputsOf(const Scan& scan, const Forward& f, int64_t part) {
  using Reals = Lanes<lanes>;
  const auto at = scan.Find(part);
  const int64_t N = scan.N, d = scan.d, units = (at.count + lanes - 1) / lanes;
  Room<Reals> h(N * units), A(N * units), y(units), dt(units), v(units);
  const Real* A_ = f.A + at.channel;
  const Real* h0 = f.h0 + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[n * units + u] = Load<lanes>(A_ + n * d + u * lanes, at.count - u * lanes);
      h[n * units + u] = Load<lanes>(h0 + n * d + u * lanes, at.count - u * lanes);
    }
  }
  for (int64_t k = 0; k < scan.L; ++k) {
    if (k % scan.chunk == 0) {
      Real* kept = f.before + (at.sequence * scan.chunks + k / scan.chunk) * N * d + at.channel;
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t u = 0; u < units; ++u) {
          Store<lanes>(h[n * units + u], kept + n * d + u * lanes, at.count - u * lanes);
        }
      }
    }
    const int64_t row = (at.sequence * scan.L + k) * d + at.channel;
    const Real* B = f.B + (at.sequence * scan.L + k) * N;
    const Real* C = f.C + (at.sequence * scan.L + k) * N;
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
  Real* last = f.last + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store<lanes>(h[n * units + u], last + n * d + u * lanes, at.count - u * lanes);
    }
  }
}

struct Backward {
  const Real *A, *x, *dt, *B, *C, *before, *dy, *dlast;
  Real *dx, *ddt, *dh0;
  const Copies &dA, &dB, &dC;  // one for each sequence, for each block of channels
};

// With g_k the cotangent of h_k, a_k the decay: g_k = C_k dy_k + a_{k+1} g_{k+1}. Then
// dC_k = sum_d dy_k h_k, dB_k = sum_d g_k (dt x)_k, d(dt x)_k = sum_n B_k g_k, and through the
// decay, with p_k = g_k a_k h_{k-1}: d(dt)_k = sum_n A p_k, dA = sum_k dt_k p_k.
// Vectors of a block are `fixed`, for the compiler to know, or as many as there are.
template <int lanes, int fixed>
INLINE void GradientsOf(const Scan& scan, const Backward& b, const Scan::Place& at) {
  using Reals = Lanes<lanes>;
  const int64_t units = fixed ? fixed : (at.count + lanes - 1) / lanes;
  const int64_t N = scan.N, d = scan.d, most = std::min(N, kTogether) * units;
  Room<Reals> A(N * units), dA(N * units), later(N * units);
  Room<Reals> states((scan.chunk + 1) * most), decay(scan.chunk * most);
  Room<Reals> dt(scan.chunk * units), v(scan.chunk * units), dv(scan.chunk * units),
      ddt(scan.chunk * units);
  Room<Reals> dB(kTogether), dC(kTogether);  // of a sample, by channels
  const auto load = [&](const Real* from, int64_t u) {
    return Load<lanes>(from + at.channel + u * lanes, at.count - u * lanes);
  };
  const Real* dlast = b.dlast + at.sequence * N * d;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[u * N + n] = load(b.A + n * d, u);
      later[u * N + n] = load(dlast + n * d, u);
    }
  }
  for (int64_t c = scan.chunks - 1; c >= 0; --c) {
    const int64_t begin = c * scan.chunk, T = std::min(scan.chunk, scan.L - begin);
    const int64_t first = at.sequence * scan.L + begin;
    const Real* kept = b.before + (at.sequence * scan.chunks + c) * N * d;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t u = 0; u < units; ++u) {
        const int64_t k = t * units + u;
        dt[k] = load(b.dt + (first + t) * d, u);
        v[k] = dt[k] * load(b.x + (first + t) * d, u);
        dv[k] = ddt[k] = Reals{};
      }
    }
    for (int64_t some = 0; some < N; some += kTogether) {
      const int64_t count = std::min(kTogether, N - some), size = count * units;
      for (int64_t u = 0; u < units; ++u) {
        for (int64_t n = 0; n < count; ++n) {
          states[u * count + n] = load(kept + (some + n) * d, u);
        }
      }
      for (int64_t t = 0; t < T; ++t) {
        const Real* B = b.B + (first + t) * N + some;
        for (int64_t u = 0; u < units; ++u) {
          const Reals dt_u = dt[t * units + u], v_u = v[t * units + u];
          const Reals* h = &states[t * size + u * count];
          Reals* after = &states[(t + 1) * size + u * count];
          Reals* a = &decay[t * size + u * count];
          for (int64_t n = 0; n < count; ++n) {
            a[n] = Exp<lanes>(dt_u * A[u * N + some + n]);
            after[n] = a[n] * h[n] + v_u * B[n];
          }
        }
      }
      for (int64_t t = T - 1; t >= 0; --t) {
        const int64_t row = (first + t) * N + some;
        const Real *B = b.B + row, *C = b.C + row;
        Reals dy[kWidest / lanes], dv_t[kWidest / lanes], ddt_t[kWidest / lanes];
        for (int64_t u = 0; u < units; ++u) {
          dy[u] = load(b.dy + (first + t) * d, u);
          dv_t[u] = dv[t * units + u];
          ddt_t[u] = ddt[t * units + u];
        }
        for (int64_t n = 0; n < count; ++n) {
          Reals dB_n = {}, dC_n = {};
          for (int64_t u = 0; u < units; ++u) {
            const int64_t i = u * N + some + n, k = t * size + u * count + n;
            const Reals g = later[i] + dy[u] * C[n], next = decay[k] * g, p = next * states[k];
            dC_n += dy[u] * states[k + size];
            dB_n += g * v[t * units + u];
            dv_t[u] += g * B[n];
            ddt_t[u] += A[i] * p;
            dA[i] += dt[t * units + u] * p;
            later[i] = next;
          }
          dB[n] = dB_n;
          dC[n] = dC_n;
        }
        for (int64_t u = 0; u < units; ++u) {
          dv[t * units + u] = dv_t[u];
          ddt[t * units + u] = ddt_t[u];
        }
        for (int64_t n = 0; n < count; n += lanes) {
          Store<lanes>(Sums<lanes>(&dB[n]), b.dB.At(at.block) + row + n, count - n);
          Store<lanes>(Sums<lanes>(&dC[n]), b.dC.At(at.block) + row + n, count - n);
        }
      }
    }
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t u = 0; u < units; ++u) {
        const int64_t k = t * units + u, to = (first + t) * d + at.channel + u * lanes;
        Store<lanes>(dt[k] * dv[k], b.dx + to, at.count - u * lanes);
        Store<lanes>(ddt[k] + load(b.x + (first + t) * d, u) * dv[k], b.ddt + to,
                     at.count - u * lanes);
      }
    }
  }
  const int64_t to = at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store<lanes>(dA[u * N + n], b.dA.At(at.sequence) + at.channel + n * d + u * lanes,
                   at.count - u * lanes);
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
    const auto at = scan.Find(part);
    if (at.count == 4 * lanes) {
      GradientsOf<lanes, 4>(scan, arrays, at);
    } else {
      GradientsOf<lanes, 0>(scan, arrays, at);
    }
  }
};

using Floats = ffi::Buffer<zoo::kReal>;
using Result = ffi::Result<Floats>;

// Of A [N d] and x [b L d].
ffi::ErrorOr<Scan> Describe(ffi::ThreadPool& pool, const Floats& A, const Floats& x, int64_t chunk,
                            int64_t width) {
  const auto of_A = A.dimensions(), of_x = x.dimensions();
  if (of_A.size() != 2 || of_x.size() != 3 || of_A[1] != of_x[2] || chunk < 1 || width < 16 ||
      width > kWidest || width % 16) {
    return ffi::Unexpected(ffi::Error::InvalidArgument("A [N d], x [b L d], width 16 to 64"));
  }
  Scan scan;
  scan.sequences = of_x[0];
  scan.L = of_x[1];
  scan.d = of_x[2];
  scan.N = of_A[0];
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
  const Copies dA_(dA, scan->sequences), dB_(dB, scan->blocks), dC_(dC, scan->blocks);
  const Backward b = {A.typed_data(),
                      x.typed_data(),
                      dt.typed_data(),
                      B.typed_data(),
                      C.typed_data(),
                      before.typed_data(),
                      dy.typed_data(),
                      dlast.typed_data(),
                      dx->typed_data(),
                      ddt->typed_data(),
                      dh0->typed_data(),
                      dA_,
                      dB_,
                      dC_};
  zoo::Share(pool, scan->sequences * scan->blocks, scan->threads, [&b, scan = *scan](int64_t part) {
    zoo::OnWidest(Gradients{scan, b, part});
  });
  for (const Copies* each : {&dA_, &dB_, &dC_}) each->AddUp(pool);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ZOO_NAMED(selective_outputs), RunOutputs,
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(ZOO_NAMED(selective_gradients), RunGradients,
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
