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

#include <cstring>
#include <new>

#include "share.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t Bits __attribute__((vector_size(4 * kLanes)));

#define INLINE inline __attribute__((always_inline))

// Zeros, aligned as vectors have to be, which a std::vector of them does not promise.
class Room {
 public:
  explicit Room(int64_t size)
      : lanes_(static_cast<Lanes*>(::operator new(size * sizeof(Lanes), kAligned))) {
    std::memset(static_cast<void*>(lanes_), 0, size * sizeof(Lanes));
  }
  ~Room() { ::operator delete(lanes_, kAligned); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  INLINE Lanes& operator[](int64_t i) { return lanes_[i]; }

 private:
  static constexpr std::align_val_t kAligned{sizeof(Lanes)};
  Lanes* lanes_;
};

INLINE Lanes Load(const float* from, int64_t count) {
  Lanes lanes = {};
  if (count >= kLanes) {
    std::memcpy(&lanes, from, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(&lanes, from, count * sizeof(float));
  }
  return lanes;
}

INLINE void Store(const Lanes& lanes, float* to, int64_t count) {
  if (count >= kLanes) {
    std::memcpy(to, &lanes, sizeof(lanes));
  } else if (count > 0) {
    std::memcpy(to, &lanes, count * sizeof(float));
  }
}

INLINE float Sum(const Lanes& lanes) {
  float halves[kLanes];
  std::memcpy(halves, &lanes, sizeof(lanes));
  for (int width = kLanes / 2; width; width /= 2) {
    for (int i = 0; i < width; ++i) halves[i] += halves[i + width];
  }
  return halves[0];
}

// exp(x) to about one unit in the last place, x = n log 2 + r, by a polynomial in r (Cephes). What
// single precision cannot hold becomes its smallest or its largest numbers; NaN stays NaN.
INLINE Lanes Exp(Lanes x) {
  x = x < -87.3f ? Lanes{} - 87.3f : x;
  x = x > 88.3f ? Lanes{} + 88.3f : x;
  const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves no digits after the point
  const Lanes n = (x * 1.44269504088896341f + round) - round;
  const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Bits power = (__builtin_convertvector(n, Bits) + 127) << 23;
  Lanes scale;
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

FOR_WIDE_VECTORS void Outputs(const Scan& scan, const Forward& f, int64_t part) {
  const auto at = scan.Find(part);
  const int64_t N = scan.N, d = scan.d, units = (at.count + kLanes - 1) / kLanes;
  Room h(N * units), A(N * units), y(units), dt(units), v(units);
  const float* A_ = f.A + at.sequence / scan.per_A * N * d + at.channel;
  const float* h0 = f.h0 + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[n * units + u] = Load(A_ + n * d + u * kLanes, at.count - u * kLanes);
      h[n * units + u] = Load(h0 + n * d + u * kLanes, at.count - u * kLanes);
    }
  }
  for (int64_t k = 0; k < scan.L; ++k) {
    if (k % scan.chunk == 0) {
      float* kept = f.before + (at.sequence * scan.chunks + k / scan.chunk) * N * d + at.channel;
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t u = 0; u < units; ++u) {
          Store(h[n * units + u], kept + n * d + u * kLanes, at.count - u * kLanes);
        }
      }
    }
    const int64_t row = (at.sequence * scan.L + k) * d + at.channel;
    const float* B = f.B + (at.sequence * scan.L + k) * N;
    const float* C = f.C + (at.sequence * scan.L + k) * N;
    for (int64_t u = 0; u < units; ++u) {
      dt[u] = Load(f.dt + row + u * kLanes, at.count - u * kLanes);
      v[u] = dt[u] * Load(f.x + row + u * kLanes, at.count - u * kLanes);
      y[u] = Lanes{};
    }
    for (int64_t u = 0; u < units; ++u) {
      const Lanes dt_u = dt[u], v_u = v[u];
      Lanes y_u = {};
      for (int64_t n = 0; n < N; ++n) {
        const Lanes after = Exp(dt_u * A[n * units + u]) * h[n * units + u] + v_u * B[n];
        y_u += after * C[n];
        h[n * units + u] = after;
      }
      y[u] = y_u;
    }
    for (int64_t u = 0; u < units; ++u) {
      Store(y[u], f.y + row + u * kLanes, at.count - u * kLanes);
    }
  }
  float* last = f.last + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store(h[n * units + u], last + n * d + u * kLanes, at.count - u * kLanes);
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
FOR_WIDE_VECTORS void Gradients(const Scan& scan, const Backward& b, int64_t part) {
  const auto at = scan.Find(part);
  const int64_t N = scan.N, d = scan.d, units = (at.count + kLanes - 1) / kLanes, size = N * units;
  Room A(size), dA(size), later(size), states((scan.chunk + 1) * size), decay(scan.chunk * size);
  Room dt(scan.chunk * units), v(scan.chunk * units);
  const float* A_ = b.A + at.sequence / scan.per_A * N * d + at.channel;
  const float* dlast = b.dlast + at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      A[u * N + n] = Load(A_ + n * d + u * kLanes, at.count - u * kLanes);
      later[u * N + n] = Load(dlast + n * d + u * kLanes, at.count - u * kLanes);
    }
  }
  for (int64_t c = scan.chunks - 1; c >= 0; --c) {
    const int64_t begin = c * scan.chunk, T = std::min(scan.chunk, scan.L - begin);
    const float* kept = b.before + (at.sequence * scan.chunks + c) * N * d + at.channel;
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t u = 0; u < units; ++u) {
        states[u * N + n] = Load(kept + n * d + u * kLanes, at.count - u * kLanes);
      }
    }
    for (int64_t t = 0; t < T; ++t) {
      const int64_t sample = at.sequence * scan.L + begin + t, row = sample * d + at.channel;
      const float* B = b.B + sample * N;
      for (int64_t u = 0; u < units; ++u) {
        const Lanes dt_u = Load(b.dt + row + u * kLanes, at.count - u * kLanes);
        const Lanes v_u = dt_u * Load(b.x + row + u * kLanes, at.count - u * kLanes);
        dt[t * units + u] = dt_u;
        v[t * units + u] = v_u;
        const Lanes* h = &states[t * size + u * N];
        Lanes* after = &states[(t + 1) * size + u * N];
        Lanes* a = &decay[t * size + u * N];
        for (int64_t n = 0; n < N; ++n) {
          a[n] = Exp(dt_u * A[u * N + n]);
          after[n] = a[n] * h[n] + v_u * B[n];
        }
      }
    }
    for (int64_t t = T - 1; t >= 0; --t) {
      const int64_t sample = at.sequence * scan.L + begin + t, row = sample * d + at.channel;
      const float *B = b.B + sample * N, *C = b.C + sample * N;
      const int64_t partial =
          ((at.sequence * scan.blocks + part % scan.blocks) * scan.L + begin + t) * N;
      Lanes dy[4], dv[4], ddt[4];
      for (int64_t u = 0; u < units; ++u) {
        dy[u] = Load(b.dy + row + u * kLanes, at.count - u * kLanes);
        dv[u] = ddt[u] = Lanes{};
      }
      for (int64_t n = 0; n < N; ++n) {
        Lanes dB = {}, dC = {};
        for (int64_t u = 0; u < units; ++u) {
          const int64_t i = u * N + n;
          const Lanes g = later[i] + dy[u] * C[n], next = decay[t * size + i] * g;
          const Lanes p = next * states[t * size + i];
          dC += dy[u] * states[(t + 1) * size + i];
          dB += g * v[t * units + u];
          dv[u] += g * B[n];
          ddt[u] += A[i] * p;
          dA[i] += dt[t * units + u] * p;
          later[i] = next;
        }
        b.dB[partial + n] = Sum(dB);
        b.dC[partial + n] = Sum(dC);
      }
      for (int64_t u = 0; u < units; ++u) {
        const Lanes x = Load(b.x + row + u * kLanes, at.count - u * kLanes);
        Store(dt[t * units + u] * dv[u], b.dx + row + u * kLanes, at.count - u * kLanes);
        Store(ddt[u] + x * dv[u], b.ddt + row + u * kLanes, at.count - u * kLanes);
      }
    }
  }
  const int64_t to = at.sequence * N * d + at.channel;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t u = 0; u < units; ++u) {
      Store(dA[u * N + n], b.dA + to + n * d + u * kLanes, at.count - u * kLanes);
      Store(later[u * N + n], b.dh0 + to + n * d + u * kLanes, at.count - u * kLanes);
    }
  }
}

using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

// Of A [.. N d] and x [.. L d].
ffi::ErrorOr<Scan> Describe(ffi::ThreadPool& pool, const Floats& A, const Floats& x, int64_t chunk,
                            int64_t width) {
  const auto of_A = A.dimensions(), of_x = x.dimensions();
  if (of_A.size() < 2 || of_x.size() < 2 || of_A.back() != of_x.back() || chunk < 1 ||
      width < kLanes || width > 4 * kLanes || width % kLanes) {
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
  zoo::Share(pool, scan->sequences * scan->blocks, scan->threads,
             [f, scan = *scan](int64_t part) { Outputs(scan, f, part); });
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
  zoo::Share(pool, scan->sequences * scan->blocks, scan->threads,
             [b, scan = *scan](int64_t part) { Gradients(scan, b, part); });
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
