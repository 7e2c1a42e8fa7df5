// A linear time-invariant system and its gradient on the cores of a CPU, as XLA calls them.
//
//     x_k = lam x_{k-1} + B u_k,    y_k = Re(C x_k)
//
// States never leave the first cache: a core goes through a chunk of samples with some states at
// a time, a unit, whose products with B and C are done while they are there. The states before
// chunks are kept; the gradient makes the others again, one chunk at a time, from the last one on.
// Complex numbers are real parts and imaginary parts apart. Python's side: compiled.py.

#include "lti.h"

namespace {

using zoo::Backward;
using zoo::ForEach;
using zoo::Forward;
using zoo::Lanes;
using zoo::Load;
using zoo::Places;
using zoo::Real;
using zoo::Room;
using zoo::Sizes;
using zoo::Store;

#define UNROLLED _Pragma("GCC unroll 16")

// All of it with vectors of so many lanes.
template <int lanes>
struct Kernel {
  using Reals = Lanes<lanes>;
  using Complex = zoo::ComplexLanes<lanes>;

  static constexpr int64_t kReals = zoo::kRealsOf<lanes>;

  static constexpr bool kPairs = zoo::kSize == 4;  // two numbers are as wide as an integer

  // How many samples' sums the registers hold, 32 of them or 16.
#if defined(__x86_64__)
  static constexpr int kRows = lanes * zoo::kSize == 64 ? 8 : 4;
#else
  static constexpr int kRows = 8;
#endif

  // What drives the states of a unit in `rows` samples r: sum_j of[r, j] weights[j].
  template <int rows>
  static INLINE void Drive(const Real* of, int64_t count, const Complex* weights,
                           Complex (&sum)[rows]) {
    UNROLLED
    for (int r = 0; r < rows; ++r) sum[r] = Complex{};
    for (int64_t j = 0; j < count; ++j) {
      const Complex weight = weights[j];
      UNROLLED
      for (int r = 0; r < rows; ++r) sum[r].AddProduct(weight, of[r * count + j]);
    }
  }

  // Adds to to[r] what the states of a unit make of it, sum_j states[r, j] weights[j]; `columns`
  // vectors of it.
  template <int rows, int columns>
  static INLINE void Collect(const Real* states, const Real* weights, int64_t width, Real* to) {
    Reals sum[rows][columns];
    UNROLLED
    for (int r = 0; r < rows; ++r) {
      UNROLLED
      for (int c = 0; c < columns; ++c) sum[r][c] = Load<lanes>(to + r * width + c * lanes);
    }
    for (int64_t j = 0; j < kReals; ++j) {
      Reals weight[columns];
      UNROLLED
      for (int c = 0; c < columns; ++c) weight[c] = Load<lanes>(weights + j * width + c * lanes);
      UNROLLED
      for (int r = 0; r < rows; ++r) {
        UNROLLED
        for (int c = 0; c < columns; ++c) sum[r][c] += weight[c] * states[r * kReals + j];
      }
    }
    UNROLLED
    for (int r = 0; r < rows; ++r) {
      UNROLLED
      for (int c = 0; c < columns; ++c) Store<lanes>(sum[r][c], to + r * width + c * lanes);
    }
  }

  // The same where half a vector is wide enough: states j come in pairs, the products of either of
  // them beside one another, for `CopyRows` to add up.
  template <int rows>
  static INLINE void CollectPairs(const Real* states, const Real* weights, Real* to) {
    using Pairs = typename zoo::VectorsOf<lanes>::Pairs;
    Reals sum[rows];
    UNROLLED
    for (int r = 0; r < rows; ++r) sum[r] = Load<lanes>(to + r * lanes);
    for (int64_t j = 0; j < kReals; j += 2) {
      const Reals weight = Load<lanes>(weights + j / 2 * lanes);
      UNROLLED
      for (int r = 0; r < rows; ++r) {
        int64_t pair;
        std::memcpy(&pair, states + r * kReals + j, sizeof(pair));
        const Pairs pairs = Pairs{} + pair;
        Reals each;
        std::memcpy(&each, &pairs, sizeof(each));
        sum[r] += weight * each;
      }
    }
    UNROLLED
    for (int r = 0; r < rows; ++r) Store<lanes>(sum[r], to + r * lanes);
  }

  // Adds to the gradients of `rows` weights sum_t of[t, r] states[t].
  template <int rows>
  static INLINE void Learn(const Real* of, int64_t stride, const Complex* states, int64_t samples,
                           Complex* gradients) {
    Complex sum[rows];
    UNROLLED
    for (int r = 0; r < rows; ++r) sum[r] = gradients[r];
    for (int64_t t = 0; t < samples; ++t) {
      const Complex x = states[t];
      UNROLLED
      for (int r = 0; r < rows; ++r) sum[r].AddProduct(x, of[t * stride + r]);
    }
    UNROLLED
    for (int r = 0; r < rows; ++r) gradients[r] = sum[r];
  }

  // `rows` samples: states[r] is the state after sample r.
  template <int rows>
  static INLINE void Advance(const Real* u, int64_t m, const Complex& lam, const Complex* B,
                             Complex& x, Complex* states) {
    Complex driven[rows];
    Drive<rows>(u, m, B, driven);
    UNROLLED
    for (int r = 0; r < rows; ++r) {
      x.Advance(lam, driven[r]);
      states[r] = x;
    }
  }

  static INLINE void AdvanceAll(const Real* u, int64_t m, int64_t samples, const Complex& lam,
                                const Complex* B, Complex& x, Complex* states) {
    int64_t t = 0;
    for (; t + kRows <= samples; t += kRows) Advance<kRows>(u + t * m, m, lam, B, x, states + t);
    for (; t < samples; ++t) Advance<1>(u + t * m, m, lam, B, x, states + t);
  }

  // `kRows` samples, from the last one on: cotangents[r] is that of the state after sample r,
  // `later` that of the state before all of them. before[r] is the state before sample r. JAX's
  // gradients by real and imaginary parts are those of conjugates.
  template <int rows>
  static INLINE void Retreat(const Real* dy, int64_t p, const Complex& lam, const Complex* C,
                             const Complex* before, Complex& later, Complex& dlam,
                             Complex* cotangents) {
    Complex driven[rows];
    Drive<rows>(dy, p, C, driven);
    UNROLLED
    for (int r = rows - 1; r >= 0; --r) {
      const Complex g = {later.re + driven[r].re, later.im + driven[r].im}, x = before[r];
      dlam.re += g.re * x.re;
      dlam.re += g.im * x.im;
      dlam.im += g.im * x.re;
      dlam.im -= g.re * x.im;
      cotangents[r] = g;
      later.Retreat(lam, driven[r]);
    }
  }

  static INLINE void RetreatAll(const Real* dy, int64_t p, int64_t samples, const Complex& lam,
                                const Complex* C, const Complex* before, Complex& later,
                                Complex& dlam, Complex* cotangents) {
    int64_t t = samples;
    while (t >= kRows) {
      t -= kRows;
      Retreat<kRows>(dy + t * p, p, lam, C, before + t, later, dlam, cotangents + t);
    }
    while (t) {
      --t;
      Retreat<1>(dy + t * p, p, lam, C, before + t, later, dlam, cotangents + t);
    }
  }

  // How many vectors hold `width` numbers, and whether in pairs.
  static INLINE int64_t Columns(int64_t width) { return (width + lanes - 1) / lanes; }
  static INLINE bool InPairs(int64_t width) { return kPairs && width <= lanes / 2; }

  template <int rows, int columns>
  static INLINE void CollectRows(const Real* states, const Real* weights, int64_t width,
                                 int64_t samples, Real* to) {
    int64_t t = 0;
    for (; t + rows <= samples; t += rows) {
      Collect<rows, columns>(states + t * kReals, weights, width, to + t * width);
    }
    for (; t < samples; ++t) {
      Collect<1, columns>(states + t * kReals, weights, width, to + t * width);
    }
  }

  static INLINE void CollectAll(const Complex* states_, const Real* weights, int64_t width,
                                int64_t samples, Real* to) {
    const Real* states = reinterpret_cast<const Real*>(states_);
    if constexpr (kPairs) {
      if (InPairs(width)) {
        int64_t t = 0;
        for (; t + 2 * kRows <= samples; t += 2 * kRows) {
          CollectPairs<2 * kRows>(states + t * kReals, weights, to + t * lanes);
        }
        for (; t < samples; ++t) CollectPairs<1>(states + t * kReals, weights, to + t * lanes);
        return;
      }
    }
    const int64_t padded = Columns(width) * lanes;
    int64_t c = 0;
    for (; c + 2 * lanes <= padded; c += 2 * lanes) {
      CollectRows<kRows, 2>(states, weights + c, padded, samples, to + c);
    }
    if (c < padded) CollectRows<2 * kRows, 1>(states, weights + c, padded, samples, to + c);
  }

  static INLINE void LearnAll(const Real* of, int64_t count, const Complex* states, int64_t samples,
                              Complex* gradients) {
    int64_t j = 0;
    for (; j + kRows <= count; j += kRows) {
      Learn<kRows>(of + j, count, states, samples, gradients + j);
    }
    for (; j < count; ++j) Learn<1>(of + j, count, states, samples, gradients + j);
  }

  static INLINE void Pack(const Sizes::Task& task, const Places& at, const Real* from, Real sign,
                          Room<Complex>& to) {
    Real* reals = to.Reals();
    ForEach<lanes>(task, at, [=](int64_t i, int64_t unit, int64_t j, int64_t lane, int64_t part) {
      reals[(unit * at.count + j) * kReals + lane] = part ? sign * from[i] : from[i];
    });
  }

  static INLINE void Unpack(const Sizes::Task& task, const Places& at, Room<Complex>& from,
                            Real sign, Real* to) {
    const Real* reals = from.Reals();
    ForEach<lanes>(task, at, [=](int64_t i, int64_t unit, int64_t j, int64_t lane, int64_t part) {
      const Real each = reals[(unit * at.count + j) * kReals + lane];
      to[i] = part ? sign * each : each;
    });
  }

  // How many vectors the weights of a unit take, as `CollectAll` reads them.
  static INLINE int64_t VectorsOfUnit(int64_t width) {
    return InPairs(width) ? kReals / 2 : kReals * Columns(width);
  }

  // To rows of `at.count` numbers for each state, or for each pair of states.
  static INLINE void PackRows(const Sizes::Task& task, const Places& at, const Real* from,
                              Real sign, Room<Reals>& to) {
    Real* reals = to.Reals();
    const int64_t padded = Columns(at.count) * lanes;
    const bool pairs = InPairs(at.count);
    ForEach<lanes>(task, at, [=](int64_t i, int64_t unit, int64_t j, int64_t lane, int64_t part) {
      const int64_t state = unit * kReals + lane;
      const int64_t place = pairs ? state / 2 * lanes + 2 * j + state % 2 : state * padded + j;
      reals[place] = part ? sign * from[i] : from[i];
    });
  }

  // What was collected of each sample to rows of `width` numbers.
  static INLINE void CopyRows(const Real* from, int64_t samples, int64_t width, Real* to) {
    for (int64_t t = 0; t < samples; ++t) {
      const Real* row = from + t * Columns(width) * lanes;
      for (int64_t j = 0; j < width; ++j) {
        to[t * width + j] = InPairs(width) ? row[2 * j] + row[2 * j + 1] : row[j];
      }
    }
  }

  static INLINE void Run(const Sizes& s, const Forward& f, const Sizes::Task& task) {
    const int64_t units = task.units, of_unit = VectorsOfUnit(s.p);
    Room<Complex> lam(units), B(units * s.m), x(units), states(s.chunk);
    Room<Reals> C(units * of_unit), y(s.chunk * Columns(s.p));
    zoo::ReadStates<lanes>(s, task, f.lam, lam);
    Pack(task, {s.n * s.m, s.m, 1, s.m}, f.B, 1, B);
    PackRows(task, {s.p * s.n, 1, s.n, s.p}, f.C, -1, C);
    for (int64_t i = task.sequence; i < task.after_sequences; ++i) {
      zoo::ReadStates<lanes>(s, task, f.x0 + i * 2 * s.n, x);
      for (int64_t c = 0; c < s.chunks; ++c) {
        zoo::WriteStates<lanes>(s, task, x, f.before + (i * s.chunks + c) * 2 * s.n);
        const int64_t begin = c * s.chunk, samples = std::min(s.chunk, s.L - begin);
        const Real* u = f.u + (i * s.L + begin) * s.m;
        y.Clear(samples * Columns(s.p));
        for (int64_t k = 0; k < units; ++k) {
          Complex at = x[k];
          AdvanceAll(u, s.m, samples, lam[k], &B[k * s.m], at, &states[0]);
          x[k] = at;
          CollectAll(&states[0], C.Reals(k * of_unit), s.p, samples, y.Reals());
        }
        CopyRows(y.Reals(), samples, s.p, f.y.At(task.part) + (i * s.L + begin) * s.p);
      }
      zoo::WriteStates<lanes>(s, task, x, f.last + i * 2 * s.n);
    }
  }

  static INLINE void Run(const Sizes& s, const Backward& b, const Sizes::Task& task) {
    const int64_t units = task.units, of_unit = VectorsOfUnit(s.m);
    const Places of_B = {s.n * s.m, s.m, 1, s.m}, of_C = {s.p * s.n, 1, s.n, s.p};
    Room<Complex> lam(units), B(units * s.m), C(units * s.p), dlam(units), dB(units * s.m),
        dC(units * s.p);
    Room<Complex> x(units), later(units), states(s.chunk + 1), cotangents(s.chunk);
    Room<Reals> B_rows(units * of_unit), du(s.chunk * Columns(s.m));
    zoo::ReadStates<lanes>(s, task, b.lam, lam);
    Pack(task, of_B, b.B, 1, B);
    PackRows(task, of_B, b.B, 1, B_rows);
    Pack(task, of_C, b.C, -1, C);
    for (int64_t i = task.sequence; i < task.after_sequences; ++i) {
      zoo::ReadStates<lanes>(s, task, b.dlast + i * 2 * s.n, later);
      for (int64_t c = s.chunks - 1; c >= 0; --c) {
        zoo::ReadStates<lanes>(s, task, b.before + (i * s.chunks + c) * 2 * s.n, x);
        const int64_t begin = c * s.chunk, samples = std::min(s.chunk, s.L - begin);
        const Real* u = b.u + (i * s.L + begin) * s.m;
        const Real* dy = b.dy + (i * s.L + begin) * s.p;
        du.Clear(samples * Columns(s.m));
        for (int64_t k = 0; k < units; ++k) {
          Complex at = x[k], of_lam = dlam[k];
          states[0] = at;
          AdvanceAll(u, s.m, samples, lam[k], &B[k * s.m], at, &states[1]);
          at = later[k];
          RetreatAll(dy, s.p, samples, lam[k], &C[k * s.p], &states[0], at, of_lam, &cotangents[0]);
          later[k] = at;
          dlam[k] = of_lam;
          CollectAll(&cotangents[0], B_rows.Reals(k * of_unit), s.m, samples, du.Reals());
          LearnAll(u, s.m, &cotangents[0], samples, &dB[k * s.m]);
          LearnAll(dy, s.p, &states[1], samples, &dC[k * s.p]);
        }
        CopyRows(du.Reals(), samples, s.m, b.du.At(task.part) + (i * s.L + begin) * s.m);
      }
      zoo::WriteStates<lanes>(s, task, later, b.dx0 + i * 2 * s.n);
    }
    zoo::WriteStates<lanes>(s, task, dlam, b.dlam.At(task.group));
    Unpack(task, of_B, dB, 1, b.dB.At(task.group));
    Unpack(task, of_C, dC, -1, b.dC.At(task.group));
  }
};

struct OnWidest {
  static constexpr int64_t kGroups = 4;  // for a core, so that none waits long for another one

  template <typename Arrays>
  struct Task {
    const Sizes& sizes;
    const Arrays& arrays;
    int64_t task;

    template <int lanes>
    INLINE void On() const {
      Kernel<lanes>::Run(sizes, arrays, sizes.Find<lanes>(task));
    }
  };

  template <typename Arrays>
  static void Run(const Sizes& sizes, const Arrays& arrays, int64_t task) {
    zoo::OnWidest(Task<Arrays>{sizes, arrays, task});
  }
};

}  // namespace

ZOO_LTI_OUTPUTS(ZOO_NAMED(lti_outputs), OnWidest)
ZOO_LTI_GRADIENTS(ZOO_NAMED(lti_gradients), OnWidest)
