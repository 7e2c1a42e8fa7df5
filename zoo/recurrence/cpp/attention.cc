// Linear attention and its gradient on the cores of a CPU, as XLA calls them.
//
// For each head, with K keys and V values,
//
//     S_t = diag(a_t) S_{t-1} + k_t w_t^T,    o_t = S_t^T q_t,    a_t = exp(g_t),
//
// where w_t = v_t, or by the delta rule w_t = b_t (v_t - a_t S_{t-1}^T k_t), with one a_t for all
// keys (arXiv 2312.06635, 2406.06484, 2412.06464). Columns of S have nothing to do with one
// another: a core goes through all samples of a few vectors of columns, which stay in its first
// cache, and passes over them once for each sample. Of every `chunk`-th sample the state before it
// is kept; the gradient makes the others again, one chunk at a time, from the last one on.
// Python's side: compiled.py.

#include <cmath>

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

using zoo::Lanes;
using zoo::Load;
using zoo::Real;
using zoo::Room;
using zoo::Store;
using zoo::Sums;

// Sizes. Decays are one for each key (`each`) or one for all.
struct Scan {
  int64_t sequences, L, heads, K, V, chunk, chunks, threads;
  bool each, delta;

  int64_t Row(int64_t sequence, int64_t t, int64_t head) const {
    return (sequence * L + t) * heads + head;
  }
  int64_t State(int64_t sequence, int64_t head) const {
    return (sequence * heads + head) * K * V;
  }
  int64_t Kept(int64_t sequence, int64_t c, int64_t head) const {
    return ((sequence * chunks + c) * heads + head) * K * V;
  }
};

struct Forward {
  const Real *q, *k, *v, *g, *beta, *S0;
  Real *o, *last, *before;
};

struct Backward {
  const Real *q, *k, *v, *g, *beta, *before, *d_o, *dlast;
  Real *dq, *dk, *dv, *dg, *dbeta, *dS0;
};

// Some columns of the values of one head of one sequence.
struct Place {
  int64_t sequence, head, column;
};

template <int lanes>
INLINE Real Sum(Lanes<lanes> x) {
  Real sum = 0;
  for (int i = 0; i < lanes; ++i) sum += x[i];
  return sum;
}

template <int lanes>
INLINE Real Dot(const Real* a, const Real* b, int64_t size) {
  Lanes<lanes> sum = {};
  for (int64_t i = 0; i < size; i += lanes) {
    sum += Load<lanes>(a + i, size - i) * Load<lanes>(b + i, size - i);
  }
  return Sum<lanes>(sum);
}

// exp(g) of the keys of a sample, or the one for all.
template <int lanes, bool each>
INLINE Real Decays(const Scan& scan, const Real* g, int64_t row, Real* to) {
  if (!each) return std::exp(g[row]);
  for (int64_t n = 0; n < scan.K; n += lanes) {
    const auto decays = zoo::Exp<lanes>(Load<lanes>(g + row * scan.K + n, scan.K - n));
    Store<lanes>(decays, to + n, scan.K - n);
  }
  return 0;
}

template <int lanes, int units, bool each, bool delta>
INLINE void OutputsOf(const Scan& scan, const Forward& f, const Place& at) {
  using Reals = Lanes<lanes>;
  const int64_t K = scan.K, V = scan.V, count = V - at.column;
  Room<Reals> S(K * units), decays((K + lanes - 1) / lanes);
  const Real* first = f.S0 + scan.State(at.sequence, at.head) + at.column;
  Reals read[units] = {};  // S_{t-1}^T k_t
  const Real* k0 = f.k + scan.Row(at.sequence, 0, at.head) * K;
  for (int64_t n = 0; n < K; ++n) {
    for (int u = 0; u < units; ++u) {
      S[n * units + u] = Load<lanes>(first + n * V + u * lanes, count - u * lanes);
      read[u] += k0[n] * S[n * units + u];
    }
  }
  for (int64_t t = 0; t < scan.L; ++t) {
    if (t % scan.chunk == 0) {
      Real* kept = f.before + scan.Kept(at.sequence, t / scan.chunk, at.head) + at.column;
      for (int64_t n = 0; n < K; ++n) {
        for (int u = 0; u < units; ++u) {
          Store<lanes>(S[n * units + u], kept + n * V + u * lanes, count - u * lanes);
        }
      }
    }
    const int64_t row = scan.Row(at.sequence, t, at.head);
    const Real *q = f.q + row * K, *k = f.k + row * K;
    const Real* later = t + 1 < scan.L ? k + scan.heads * K : k;
    const Real alike = Decays<lanes, each>(scan, f.g, row, decays.Reals());
    const Real* a = decays.Reals();
    Reals w[units], o[units] = {}, after[units] = {};
    for (int u = 0; u < units; ++u) {
      w[u] = Load<lanes>(f.v + row * V + at.column + u * lanes, count - u * lanes);
      if (delta) w[u] = f.beta[row] * (w[u] - alike * read[u]);
    }
    for (int64_t n = 0; n < K; ++n) {
      const Real a_n = each ? a[n] : alike;
      for (int u = 0; u < units; ++u) {
        const Reals s = a_n * S[n * units + u] + k[n] * w[u];
        o[u] += q[n] * s;
        if (delta) after[u] += later[n] * s;
        S[n * units + u] = s;
      }
    }
    for (int u = 0; u < units; ++u) {
      Store<lanes>(o[u], f.o + row * V + at.column + u * lanes, count - u * lanes);
      read[u] = after[u];
    }
  }
  Real* last = f.last + scan.State(at.sequence, at.head) + at.column;
  for (int64_t n = 0; n < K; ++n) {
    for (int u = 0; u < units; ++u) {
      Store<lanes>(S[n * units + u], last + n * V + u * lanes, count - u * lanes);
    }
  }
}

// The sums of the lanes of `size` vectors, times `factors` if there are any, which come to what
// other columns have left there.
template <int lanes>
INLINE void AddSums(const Lanes<lanes>* vectors, int64_t size, bool first, const Real* factors,
                    Real* to) {
  for (int64_t n = 0; n < size; n += lanes) {
    auto sums = Sums<lanes>(vectors + n);
    if (factors != nullptr) sums *= Load<lanes>(factors + n, size - n);
    if (!first) sums += Load<lanes>(to + n, size - n);
    Store<lanes>(sums, to + n, size - n);
  }
}

// With G_t the cotangent of S_t: G_t = q_t do_t^T + (what comes from S_{t+1}), dw_t = G_t^T k_t. By
// the delta rule, with y_t = v_t - a_t r_t and r_t = S_{t-1}^T k_t, db_t = dw_t y_t,
// dv_t = b_t dw_t, and dr_t = -a_t b_t dw_t; else dv_t = dw_t, dr_t = 0. Then
//
//     dq_t = S_t do_t,    dk_t = G_t w_t + S_{t-1} dr_t,    dg_t = a_t (G_t, S_{t-1}) + dr_t r_t,
//
// and a_t G_t + k_t dr_t^T goes on to S_{t-1}.
template <int lanes, int units, bool each, bool delta>
INLINE void GradientsOf(const Scan& scan, const Backward& b, const Place& at) {
  using Reals = Lanes<lanes>;
  const int64_t K = scan.K, V = scan.V, size = K * units, count = V - at.column;
  const int64_t padded = (K + lanes - 1) / lanes * lanes;
  const bool first = at.column == 0;
  Room<Reals> states((scan.chunk + 1) * size), later(size);
  Room<Reals> written(scan.chunk * units), reads(scan.chunk * units), missed(scan.chunk * units);
  Room<Reals> decays(scan.chunk * padded / lanes), sums(padded), more(padded);
  Room<Real> alike(scan.chunk);
  const auto load = [&](const Real* from, int u) {
    return Load<lanes>(from + at.column + u * lanes, count - u * lanes);
  };
  const Real* dlast = b.dlast + scan.State(at.sequence, at.head);
  Reals ahead[units] = {};  // (what comes from S_{t+1})^T k_t
  const Real* k_last = b.k + scan.Row(at.sequence, scan.L - 1, at.head) * K;
  for (int64_t n = 0; n < K; ++n) {
    for (int u = 0; u < units; ++u) {
      later[n * units + u] = load(dlast + n * V, u);
      ahead[u] += k_last[n] * later[n * units + u];
    }
  }
  for (int64_t c = scan.chunks - 1; c >= 0; --c) {
    const int64_t begin = c * scan.chunk, T = std::min(scan.chunk, scan.L - begin);
    const Real* kept = b.before + scan.Kept(at.sequence, c, at.head);
    Reals read[units] = {};
    const Real* k0 = b.k + scan.Row(at.sequence, begin, at.head) * K;
    for (int64_t n = 0; n < K; ++n) {
      for (int u = 0; u < units; ++u) {
        states[n * units + u] = load(kept + n * V, u);
        read[u] += k0[n] * states[n * units + u];
      }
    }
    for (int64_t t = 0; t < T; ++t) {
      const int64_t row = scan.Row(at.sequence, begin + t, at.head);
      const Real* k = b.k + row * K;
      const Real* next = t + 1 < T ? k + scan.heads * K : k;
      Real* a = decays.Reals() + t * padded;
      alike[t] = Decays<lanes, each>(scan, b.g, row, a);
      const Real a_t = alike[t];
      Reals w[units], d_o[units], after[units] = {};
      for (int u = 0; u < units; ++u) {
        d_o[u] = load(b.d_o + row * V, u);
        w[u] = load(b.v + row * V, u);
        if (delta) {
          reads[t * units + u] = read[u];
          w[u] -= a_t * read[u];
          missed[t * units + u] = w[u];
          w[u] *= b.beta[row];
        }
        written[t * units + u] = w[u];
      }
      const Reals* S = &states[t * size];
      Reals* S_after = &states[(t + 1) * size];
      for (int64_t n = 0; n < K; ++n) {
        const Real a_n = each ? a[n] : a_t;
        Reals dq = {};
        for (int u = 0; u < units; ++u) {
          const Reals s = a_n * S[n * units + u] + k[n] * w[u];
          dq += s * d_o[u];
          if (delta) after[u] += next[n] * s;
          S_after[n * units + u] = s;
        }
        sums[n] = dq;
      }
      for (int u = 0; u < units; ++u) read[u] = after[u];
      AddSums<lanes>(&sums[0], K, first, nullptr, b.dq + row * K);
    }
    for (int64_t t = T - 1; t >= 0; --t) {
      const int64_t row = scan.Row(at.sequence, begin + t, at.head);
      const Real *q = b.q + row * K, *k = b.k + row * K;
      const Real* next = begin + t > 0 ? k - scan.heads * K : k;
      const Real* a = decays.Reals() + t * padded;
      const Real a_t = alike[t], qk = Dot<lanes>(q, k, K), beta = delta ? b.beta[row] : Real(1);
      Reals d_o[units], w[units], dr[units] = {}, before[units] = {};
      Reals dbeta = {}, dg = {}, dg_read = {};
      for (int u = 0; u < units; ++u) {
        d_o[u] = load(b.d_o + row * V, u);
        w[u] = written[t * units + u];
        const Reals dw = ahead[u] + qk * d_o[u], dv = beta * dw;
        Store<lanes>(dv, b.dv + row * V + at.column + u * lanes, count - u * lanes);
        if (delta) {
          dbeta += dw * missed[t * units + u];
          dr[u] = -a_t * dv;
          dg_read += dr[u] * reads[t * units + u];
        }
      }
      const Reals* S = &states[t * size];
      for (int64_t n = 0; n < K; ++n) {
        const Real a_n = each ? a[n] : a_t;
        Reals dk = {}, of_decay = {};
        for (int u = 0; u < units; ++u) {
          const Reals s = S[n * units + u], G = later[n * units + u] + q[n] * d_o[u];
          dk += G * w[u];
          of_decay += G * s;
          Reals on = a_n * G;
          if (delta) {
            dk += s * dr[u];
            on += k[n] * dr[u];
          }
          before[u] += next[n] * on;
          later[n * units + u] = on;
        }
        sums[n] = dk;
        if (each) {
          more[n] = of_decay;
        } else {
          dg += of_decay;
        }
      }
      for (int u = 0; u < units; ++u) ahead[u] = before[u];
      AddSums<lanes>(&sums[0], K, first, nullptr, b.dk + row * K);
      if (each) {
        AddSums<lanes>(&more[0], K, first, a, b.dg + row * K);
      } else {
        b.dg[row] = (first ? 0 : b.dg[row]) + a_t * Sum<lanes>(dg) + Sum<lanes>(dg_read);
      }
      if (delta) b.dbeta[row] = (first ? 0 : b.dbeta[row]) + Sum<lanes>(dbeta);
    }
  }
  Real* to = b.dS0 + scan.State(at.sequence, at.head) + at.column;
  for (int64_t n = 0; n < K; ++n) {
    for (int u = 0; u < units; ++u) {
      Store<lanes>(later[n * units + u], to + n * V + u * lanes, count - u * lanes);
    }
  }
}

struct Outputs {
  const Scan& scan;
  const Forward& arrays;

  template <int lanes, int units, bool each, bool delta>
  INLINE void Of(const Place& at) const {
    OutputsOf<lanes, units, each, delta>(scan, arrays, at);
  }
};

struct Gradients {
  const Scan& scan;
  const Backward& arrays;

  template <int lanes, int units, bool each, bool delta>
  INLINE void Of(const Place& at) const {
    GradientsOf<lanes, units, each, delta>(scan, arrays, at);
  }
};

// `Work` on all columns of a head, four vectors of them at a time, then two, then one.
template <typename Work>
struct OfHead {
  const Work work;
  int64_t part;

  template <int lanes>
  INLINE void On() const {
    if (work.scan.delta) {
      Columns<lanes, false, true>();
    } else if (work.scan.each) {
      Columns<lanes, true, false>();
    } else {
      Columns<lanes, false, false>();
    }
  }

  template <int lanes, bool each, bool delta>
  INLINE void Columns() const {
    Place at = {part / work.scan.heads, part % work.scan.heads, 0};
    while (at.column < work.scan.V) {
      const int64_t vectors = (work.scan.V - at.column + lanes - 1) / lanes;
      if (vectors >= 4) {
        work.template Of<lanes, 4, each, delta>(at);
        at.column += 4 * lanes;
      } else if (vectors >= 2) {
        work.template Of<lanes, 2, each, delta>(at);
        at.column += 2 * lanes;
      } else {
        work.template Of<lanes, 1, each, delta>(at);
        at.column += lanes;
      }
    }
  }
};

using Floats = ffi::Buffer<zoo::kReal>;
using Result = ffi::Result<Floats>;

// Of q, k [b L h K], v [b L h V], g [b L h K] or [b L h 1], beta [b L h] or [b 0 h].
ffi::ErrorOr<Scan> Describe(ffi::ThreadPool& pool, const Floats& k, const Floats& v,
                            const Floats& g, const Floats& beta, int64_t chunk) {
  const auto of_k = k.dimensions(), of_v = v.dimensions(), of_g = g.dimensions();
  const auto of_beta = beta.dimensions();
  if (of_k.size() != 4 || of_v.size() != 4 || of_g.size() != 4 || of_beta.size() != 3 ||
      of_k[1] < 1 || chunk < 1 || (of_g[3] != 1 && of_g[3] != of_k[3])) {
    return ffi::Unexpected(ffi::Error::InvalidArgument(
        "k [b L h K], v [b L h V], g [b L h K] or [b L h 1], beta [b L h] or [b 0 h]"));
  }
  Scan scan;
  scan.sequences = of_k[0];
  scan.L = of_k[1];
  scan.heads = of_k[2];
  scan.K = of_k[3];
  scan.V = of_v[3];
  scan.chunk = std::min(chunk, scan.L);
  scan.chunks = (scan.L + scan.chunk - 1) / scan.chunk;
  scan.delta = of_beta[1] != 0;
  scan.each = of_g[3] != 1;
  scan.threads = zoo::Threads(pool, k.element_count() * scan.V);
  return scan;
}

ffi::Error RunOutputs(ffi::ThreadPool pool, Floats q, Floats k, Floats v, Floats g, Floats beta,
                      Floats S0, Result o, Result last, Result before, int64_t chunk) {
  auto scan = Describe(pool, k, v, g, beta, chunk);
  if (scan.has_error()) return scan.error();
  const Forward f = {q.typed_data(),    k.typed_data(),     v.typed_data(),
                     g.typed_data(),    beta.typed_data(),  S0.typed_data(),
                     o->typed_data(),   last->typed_data(), before->typed_data()};
  zoo::Share(pool, scan->sequences * scan->heads, scan->threads, [f, scan = *scan](int64_t part) {
    zoo::OnWidest(OfHead<Outputs>{{scan, f}, part});
  });
  return ffi::Error::Success();
}

ffi::Error RunGradients(ffi::ThreadPool pool, Floats q, Floats k, Floats v, Floats g, Floats beta,
                        Floats before, Floats d_o, Floats dlast, Result dq, Result dk, Result dv,
                        Result dg, Result dbeta, Result dS0, int64_t chunk) {
  auto scan = Describe(pool, k, v, g, beta, chunk);
  if (scan.has_error()) return scan.error();
  const Backward b = {q.typed_data(),    k.typed_data(),      v.typed_data(),
                      g.typed_data(),    beta.typed_data(),   before.typed_data(),
                      d_o.typed_data(),  dlast.typed_data(),  dq->typed_data(),
                      dk->typed_data(),  dv->typed_data(),    dg->typed_data(),
                      dbeta->typed_data(), dS0->typed_data()};
  zoo::Share(pool, scan->sequences * scan->heads, scan->threads, [b, scan = *scan](int64_t part) {
    zoo::OnWidest(OfHead<Gradients>{{scan, b}, part});
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ZOO_NAMED(attention_outputs), RunOutputs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()  // q
                                  .Arg<Floats>()  // k
                                  .Arg<Floats>()  // v
                                  .Arg<Floats>()  // g
                                  .Arg<Floats>()  // beta
                                  .Arg<Floats>()  // S0
                                  .Ret<Floats>()  // o
                                  .Ret<Floats>()  // last
                                  .Ret<Floats>()  // before
                                  .Attr<int64_t>("chunk"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(ZOO_NAMED(attention_gradients), RunGradients,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()  // q
                                  .Arg<Floats>()  // k
                                  .Arg<Floats>()  // v
                                  .Arg<Floats>()  // g
                                  .Arg<Floats>()  // beta
                                  .Arg<Floats>()  // before
                                  .Arg<Floats>()  // d_o
                                  .Arg<Floats>()  // dlast
                                  .Ret<Floats>()  // dq
                                  .Ret<Floats>()  // dk
                                  .Ret<Floats>()  // dv
                                  .Ret<Floats>()  // dg
                                  .Ret<Floats>()  // dbeta
                                  .Ret<Floats>()  // dS0
                                  .Attr<int64_t>("chunk"));
