// A linear time-invariant system and its gradient as in lti.cc, with products in bfloat16 by the
// tiles of a CPU: inputs, B, C, states where they leave, and their cotangents are rounded to it.
// Sums, the recurrence, its states and lam stay in single precision.
//
// Numbers of a unit are real parts of its 16 states, then their imaginary parts: two tiles wide.

#include "tiles.h"

#if ZOO_TILES

#include "lti.h"

namespace {

using zoo::Backward;
using zoo::ForEach;
using zoo::Forward;
using zoo::Half;
using zoo::kDepth;
using zoo::kTile;
using zoo::Lanes;
using zoo::Load;
using zoo::Matrix;
using zoo::Multiply;
using zoo::Places;
using zoo::Real;
using zoo::Room;
using zoo::RoundUp;
using zoo::Sizes;

constexpr int64_t kLanes = 16, kUnit = 2 * kLanes;

using Complex = zoo::ComplexLanes<kLanes>;

struct Line {  // as `Room` aligns it
  Half halves[32];
};

// Numbers in bfloat16, aligned, zero at first.
class Halves {
 public:
  explicit Halves(int64_t size) : room_(RoundUp(size, 32) / 32) {}
  INLINE Half* At(int64_t i = 0) { return room_[0].halves + i; }

 private:
  Room<Line> room_;
};

// A sequence's chunk of rows [samples, width] as first factor, and turned, for sums over samples.
struct Chunk {
  int64_t width, samples, stride;
  Halves rows, turned;

  Chunk(int64_t width, int64_t chunk, bool turns)
      : width(width),
        samples(RoundUp(chunk, kDepth)),
        stride(RoundUp(width, kDepth)),
        rows(samples * stride),
        turned(turns ? RoundUp(width, kTile) * samples : 0) {}

  TILED void Read(const Real* from, int64_t count) {
    for (int64_t t = 0; t < samples; ++t) {
      for (int64_t j = 0; j < stride; j += 32) {
        const int64_t left = t < count ? width - j : 0;
        const Real* at = from + t * width + j;
        const __m512i both = zoo::Narrowed(Load<16>(at, left), Load<16>(at + 16, left - 16));
        _mm512_storeu_si512(rows.At(t * stride + j), both);
      }
    }
  }

  void Turn() {
    for (int64_t t = 0; t < samples; t += 2) {
      const Half *row = rows.At(t * stride), *next = row + stride;
      for (int64_t j = 0; j < width; ++j) {
        const uint32_t pair = row[j] | static_cast<uint32_t>(next[j]) << 16;
        std::memcpy(turned.At(j * samples + t), &pair, sizeof(pair));
      }
    }
  }

  INLINE Matrix Rows() { return {rows.At(), 2 * stride}; }
  INLINE Matrix Turned() { return {turned.At(), 2 * samples}; }
  INLINE int64_t Depth() const { return stride / kDepth; }
};

// Weights from `width` numbers to the states of units, and from the states of all units to them.
struct Weights {
  int64_t depth, columns;
  Halves in, out;

  Weights(int64_t units, int64_t width, bool drives, bool collects)
      : depth(RoundUp(width, kDepth)),
        columns(RoundUp(width, kTile)),
        in(drives ? units * depth * kUnit : 0),
        out(collects ? units * kUnit * columns : 0) {}

  void Pack(const Sizes::Task& task, const Places& at, const Real* from, Real sign, bool drives,
            bool collects) {
    ForEach<kLanes>(task, at, [&](int64_t i, int64_t unit, int64_t j, int64_t lane, int64_t part) {
      const Half each = zoo::Rounded(part ? sign * from[i] : from[i]);
      if (drives) *in.At(((unit * depth + j) / 2 * kUnit + lane) * 2 + j % 2) = each;
      if (collects) *out.At(((unit * kUnit + lane) / 2 * columns + j) * 2 + lane % 2) = each;
    });
  }

  INLINE Matrix In(int64_t unit) { return {in.At(unit * depth * kUnit), 4 * kUnit}; }
  INLINE Matrix Out() { return {out.At(), 4 * columns}; }
};

// Gradients of weights, [columns of tiles, kUnit] for each unit.
struct Gradients {
  int64_t columns;
  Room<Complex> sums;

  Gradients(int64_t units, int64_t width) : columns(RoundUp(width, kTile)), sums(units * columns) {}

  INLINE Matrix Of(int64_t unit) { return {&sums[unit * columns], sizeof(Complex)}; }

  void Unpack(const Sizes::Task& task, const Places& at, Real sign, Real* to) {
    const Real* reals = sums.Reals();
    ForEach<kLanes>(task, at, [=](int64_t i, int64_t unit, int64_t j, int64_t lane, int64_t part) {
      const Real each = reals[(unit * columns + j) * kUnit + lane];
      to[i] = part ? sign * each : each;
    });
  }
};

// States of all units in a chunk as first factor, and those of one unit as second factor.
struct States {
  int64_t units, samples;
  Halves rows, pairs;

  States(int64_t units, int64_t chunk, bool collects, bool learns)
      : units(units),
        samples(RoundUp(chunk, kDepth)),
        rows(collects ? samples * units * kUnit : 0),
        pairs(learns ? samples * kUnit : 0) {}

  INLINE Half* Row(int64_t t, int64_t unit) { return rows.At((t * units + unit) * kUnit); }
  INLINE Half* Pair(int64_t t) { return pairs.At(t * kUnit); }
  INLINE Matrix Rows() { return {rows.At(), 2 * units * kUnit}; }
  INLINE Matrix Pairs() { return {pairs.At(), 4 * kUnit}; }
};

TILED __m512i Narrowed(const Complex& x) { return zoo::Narrowed(x.re, x.im); }

// The first `width` numbers of rows of whole tiles.
INLINE void CopyRows(const Real* from, int64_t columns, int64_t samples, int64_t width, Real* to) {
  for (int64_t t = 0; t < samples; ++t) {
    std::memcpy(to + t * width, from + t * columns, width * sizeof(Real));
  }
}

TILED void RunTask(const Sizes& s, const Forward& f, const Sizes::Task& task) {
  const zoo::Tiles tiles;
  const int64_t units = task.units;
  Chunk u(s.m, s.chunk, false);
  Weights B(units, s.m, true, false), C(units, s.p, false, true);
  States states(units, s.chunk, true, false);
  Room<Complex> lam(units), x(units), driven(u.samples);
  Room<Lanes<16>> y(u.samples * C.columns / 16);
  zoo::ReadStates<kLanes>(s, task, f.lam, lam);
  B.Pack(task, {s.n * s.m, s.m, 1, s.m}, f.B, 1, true, false);
  C.Pack(task, {s.p * s.n, 1, s.n, s.p}, f.C, -1, false, true);
  const Matrix of_driven(&driven[0], sizeof(Complex)), of_y(&y[0], 4 * C.columns);
  for (int64_t i = task.sequence; i < task.after_sequences; ++i) {
    zoo::ReadStates<kLanes>(s, task, f.x0 + i * 2 * s.n, x);
    for (int64_t c = 0; c < s.chunks; ++c) {
      zoo::WriteStates<kLanes>(s, task, x, f.before + (i * s.chunks + c) * 2 * s.n);
      const int64_t begin = c * s.chunk, samples = std::min(s.chunk, s.L - begin);
      const int64_t rows = RoundUp(samples, kTile) / kTile;
      u.Read(f.u + (i * s.L + begin) * s.m, samples);
      for (int64_t k = 0; k < units; ++k) {
        Multiply(u.Rows(), B.In(k), of_driven, rows, u.Depth(), 2, false);
        Complex at = x[k];
        const Complex by = lam[k];
        for (int64_t t = 0; t < samples; ++t) {
          at.Advance(by, driven[t]);
          _mm512_storeu_si512(states.Row(t, k), Narrowed(at));
        }
        x[k] = at;
      }
      Multiply(states.Rows(), C.Out(), of_y, rows, units, C.columns / kTile, false);
      CopyRows(y.Reals(), C.columns, samples, s.p, f.y.At(task.part) + (i * s.L + begin) * s.p);
    }
    zoo::WriteStates<kLanes>(s, task, x, f.last + i * 2 * s.n);
  }
}

// The states of a unit after each sample, from before[0] on, also as pairs of rows.
TILED void AdvanceAll(const Complex& lam, Room<Complex>& driven, int64_t samples,
                      Room<Complex>& before, States& states) {
  Complex at = before[0];
  for (int64_t t = 0; t < samples; t += 2) {
    at.Advance(lam, driven[t]);
    before[t + 1] = at;
    const __m512i row = Narrowed(at);
    at.Advance(lam, driven[t + 1]);
    before[t + 2] = at;
    zoo::StorePairs(row, Narrowed(at), states.Pair(t));
  }
}

// The cotangents of a unit's states after each sample, from the last one on; `later` is that of the
// state before all of them. JAX's gradients by real and imaginary parts are those of conjugates.
TILED void RetreatAll(const Complex& lam, Room<Complex>& driven, int64_t samples,
                      Room<Complex>& before, int64_t unit, Complex& later, Complex& dlam,
                      States& states) {
  __m512i next = {};
  for (int64_t t = samples + samples % 2 - 1; t >= 0; --t) {
    __m512i row = {};
    if (t < samples) {
      const Complex g = {later.re + driven[t].re, later.im + driven[t].im}, x = before[t];
      dlam.re += g.re * x.re;
      dlam.re += g.im * x.im;
      dlam.im += g.im * x.re;
      dlam.im -= g.re * x.im;
      row = Narrowed(g);
      _mm512_storeu_si512(states.Row(t, unit), row);
      later.Retreat(lam, driven[t]);
    }
    if (t % 2 == 0) zoo::StorePairs(row, next, states.Pair(t));
    next = row;
  }
}

TILED void RunTask(const Sizes& s, const Backward& b, const Sizes::Task& task) {
  const zoo::Tiles tiles;
  const int64_t units = task.units;
  const Places of_B = {s.n * s.m, s.m, 1, s.m}, of_C = {s.p * s.n, 1, s.n, s.p};
  Chunk u(s.m, s.chunk, true), dy(s.p, s.chunk, true);
  Weights B(units, s.m, true, true), C(units, s.p, true, false);
  Gradients dB(units, s.m), dC(units, s.p);
  States states(0, s.chunk, false, true), cotangents(units, s.chunk, true, true);
  Room<Complex> lam(units), dlam(units), x(units), later(units), driven(u.samples),
      before(u.samples + 1);
  Room<Lanes<16>> du(u.samples * B.columns / 16);
  zoo::ReadStates<kLanes>(s, task, b.lam, lam);
  B.Pack(task, of_B, b.B, 1, true, true);
  C.Pack(task, of_C, b.C, -1, true, false);
  const Matrix of_driven(&driven[0], sizeof(Complex)), of_du(&du[0], 4 * B.columns);
  for (int64_t i = task.sequence; i < task.after_sequences; ++i) {
    zoo::ReadStates<kLanes>(s, task, b.dlast + i * 2 * s.n, later);
    for (int64_t c = s.chunks - 1; c >= 0; --c) {
      zoo::ReadStates<kLanes>(s, task, b.before + (i * s.chunks + c) * 2 * s.n, x);
      const int64_t begin = c * s.chunk, samples = std::min(s.chunk, s.L - begin);
      const int64_t rows = RoundUp(samples, kTile) / kTile, depth = u.samples / kDepth;
      u.Read(b.u + (i * s.L + begin) * s.m, samples);
      dy.Read(b.dy + (i * s.L + begin) * s.p, samples);
      u.Turn();
      dy.Turn();
      for (int64_t k = 0; k < units; ++k) {
        Multiply(u.Rows(), B.In(k), of_driven, u.samples / kTile, u.Depth(), 2, false);
        before[0] = x[k];
        AdvanceAll(lam[k], driven, u.samples, before, states);
        Multiply(dy.Rows(), C.In(k), of_driven, rows, dy.Depth(), 2, false);
        RetreatAll(lam[k], driven, samples, before, k, later[k], dlam[k], cotangents);
        Multiply(u.Turned(), cotangents.Pairs(), dB.Of(k), dB.columns / kTile, depth, 2, true);
        Multiply(dy.Turned(), states.Pairs(), dC.Of(k), dC.columns / kTile, depth, 2, true);
      }
      Multiply(cotangents.Rows(), B.Out(), of_du, rows, units, B.columns / kTile, false);
      CopyRows(du.Reals(), B.columns, samples, s.m, b.du.At(task.part) + (i * s.L + begin) * s.m);
    }
    zoo::WriteStates<kLanes>(s, task, later, b.dx0 + i * 2 * s.n);
  }
  zoo::WriteStates<kLanes>(s, task, dlam, b.dlam.At(task.group));
  dB.Unpack(task, of_B, 1, b.dB.At(task.group));
  dC.Unpack(task, of_C, -1, b.dC.At(task.group));
}

struct OnTiles {
  static constexpr int64_t kGroups = 1;  // for a core: each packs weights, which takes its time

  template <typename Arrays>
  __attribute__((ZOO_FOR_TILES)) static void Run(const Sizes& sizes, const Arrays& arrays,
                                                 int64_t task) {
    RunTask(sizes, arrays, sizes.Find<kLanes>(task));
  }
};

}  // namespace

ZOO_LTI_OUTPUTS(lti_outputs_tiles, OnTiles)
ZOO_LTI_GRADIENTS(lti_gradients_tiles, OnTiles)

#endif  // ZOO_TILES
