// The diagonal recurrence and its adjoint on the cores of a CPU, as XLA calls them (typed FFI).
//
// A loop of XLA stays on one core and passes over its arrays several times. Here each core goes
// through the samples of a block of states, reads what drives them once and writes them once; no
// less can be moved. Python's side, which says what each argument is: compiled.py.

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

#if defined(__GNUC__) && !defined(__clang__)
#define EACH_APART _Pragma("GCC ivdep")  // no state of a sample depends on another one
#elif defined(__clang__)
#define EACH_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH_APART
#endif

namespace {

constexpr int64_t kNarrowest = 64;  // states of a block, at least
constexpr int64_t kWidest = 2048;   // and at most: they stay in the first cache
constexpr int64_t kLine = 16;       // single precision numbers of a cache line

// Numbers of `parts` real ones each: real numbers; complex ones, their parts side by side (stride
// 2); or all real parts of a sample, then all imaginary ones (stride 1, `apart` = n).
template <typename T, int parts_, int stride_>
struct Numbers {
  using Real = T;
  static constexpr int parts = parts_, stride = stride_;
  static constexpr bool complex = parts == 2;
};

// A block of `width` states of one sequence. Pointers are to its first sample.
struct Block {
  int64_t samples, width;
  int64_t row;       // from a sample to the next, in real numbers
  int64_t row_of_a;  // likewise, 0 where a is the same for all samples
  int64_t apart;     // from a real to its imaginary part
  bool before;       // of each sample the state before it is kept, not that after it
  bool reverse;

  int64_t At(int64_t k) const { return reverse ? samples - 1 - k : k; }
};

// x <- a x + b, sample by sample; x begins as the first state and ends as the last.
template <typename N, typename T = typename N::Real>
INLINE void States(const Block block, const T* a, const T* b, T* x, T* states) {
  const int64_t im = block.apart;
  for (int64_t k = 0; k < block.samples; ++k) {
    const T* a_k = a + block.At(k) * block.row_of_a;
    const T* b_k = b + block.At(k) * block.row;
    T* kept = states + block.At(k) * block.row;
    EACH_APART
    for (int64_t i = 0; i < block.width; ++i) {
      const int64_t j = i * N::stride;
      const T x_re = x[j];
      T re = a_k[j] * x_re + b_k[j];
      if constexpr (N::complex) {
        const T x_im = x[j + im];
        re -= a_k[j + im] * x_im;
        const T imag = a_k[j] * x_im + a_k[j + im] * x_re + b_k[j + im];
        x[j + im] = imag;
        kept[j + im] = block.before ? x_im : imag;
      }
      x[j] = re;
      kept[j] = block.before ? x_re : re;
    }
  }
}

// The adjoint: db_k = g_k, the cotangent of x_k; da_k, the products of g_k and x_{k-1}, or their
// sum where a is the same for all samples. `later` begins as the cotangent of the last state and
// ends as that of the first. Cotangents of JAX's complex numbers transpose without conjugation;
// gradients by real and imaginary parts are those of conjugates.
template <typename N, bool before, bool summed, typename T = typename N::Real>
INLINE void Adjoint(const Block block, const T* a, const T* states, const T* first,
                    const T* dstates, T* later, T* da, T* db) {
  const int64_t im = block.apart;
  const T sign = N::stride == 1 ? -1 : 1;
  for (int64_t k = block.samples - 1; k >= 0; --k) {
    const int64_t at = block.At(k);
    const T* a_k = a + at * block.row_of_a;
    const T* dx_k = dstates + at * block.row;
    T* da_k = da + at * block.row_of_a;
    T* db_k = db + at * block.row;
    const T* x = before   ? states + at * block.row
                 : k == 0 ? first
                          : states + block.At(k - 1) * block.row;
    EACH_APART
    for (int64_t i = 0; i < block.width; ++i) {
      const int64_t j = i * N::stride;
      const T re = before ? later[j] : later[j] + dx_k[j];
      T next = a_k[j] * re;
      if (before) next += dx_k[j];
      T product = re * x[j];
      if constexpr (N::complex) {
        const T imag = before ? later[j + im] : later[j + im] + dx_k[j + im];
        const T a_im = sign * a_k[j + im], x_im = sign * x[j + im];
        next -= a_im * imag;
        product -= imag * x_im;
        const T next_im = a_k[j] * imag + a_im * re, crossed = imag * x[j] + re * x_im;
        later[j + im] = before ? next_im + dx_k[j + im] : next_im;
        da_k[j + im] = summed ? da_k[j + im] + crossed : crossed;
        db_k[j + im] = imag;
      }
      later[j] = next;
      da_k[j] = summed ? da_k[j] + product : product;
      db_k[j] = re;
    }
  }
}

template <typename N, typename T = typename N::Real>
struct StatesOf {
  Block block;
  const T *a, *b;
  T *x, *states;

  template <int>
  INLINE void On() const {
    States<N>(block, a, b, x, states);
  }
};

template <typename N, typename T = typename N::Real>
struct AdjointOf {
  Block block;
  const T *a, *states, *first, *dstates;
  T *later, *da, *db;

  template <int>
  INLINE void On() const {
    const bool summed = block.row_of_a == 0;
    if (block.before) {
      summed ? Adjoint<N, true, true>(block, a, states, first, dstates, later, da, db)
             : Adjoint<N, true, false>(block, a, states, first, dstates, later, da, db);
    } else {
      summed ? Adjoint<N, false, true>(block, a, states, first, dstates, later, da, db)
             : Adjoint<N, false, false>(block, a, states, first, dstates, later, da, db);
    }
  }
};

// How arrays of whole batches are laid out: b [*batch L row] and a [*some of batch, L or 1, row].
struct Batch {
  int64_t sequences, samples, row, samples_of_a, sequences_per_a, parts, n, width, blocks, threads;
  bool split;
};

ffi::ErrorOr<Batch> Describe(ffi::ThreadPool& pool, const ffi::AnyBuffer& a,
                             const ffi::AnyBuffer& b, const ffi::AnyBuffer& x, bool split) {
  const auto rank = b.dimensions().size();
  if (rank < 2 || a.dimensions().size() < 2 || a.element_type() != b.element_type() ||
      x.element_type() != b.element_type()) {
    return ffi::Unexpected(ffi::Error::InvalidArgument("a, b, x of one kind, [.. L row] each"));
  }
  Batch batch;
  batch.split = split;
  batch.samples = b.dimensions()[rank - 2];
  batch.row = b.dimensions()[rank - 1];
  batch.samples_of_a = a.dimensions()[a.dimensions().size() - 2];
  const int64_t size = b.element_count(), of_a = batch.samples_of_a * batch.row;
  batch.sequences = batch.row ? x.element_count() / batch.row : 0;
  if (size != batch.sequences * batch.samples * batch.row || (of_a && a.element_count() % of_a) ||
      (batch.samples_of_a != batch.samples && batch.samples_of_a != 1)) {
    return ffi::Unexpected(ffi::Error::InvalidArgument("a, b and x do not fit one another"));
  }
  batch.sequences_per_a = size ? batch.sequences / (a.element_count() / of_a) : 1;
  const bool complex = split || b.element_type() == ffi::C64 || b.element_type() == ffi::C128;
  batch.parts = complex ? 2 : 1;
  batch.n = split ? batch.row / 2 : batch.row;
  batch.threads = zoo::Threads(pool, size);
  const int64_t wanted = 2 * batch.threads;  // blocks, so that no core waits long for another one
  const int64_t in_each = batch.sequences ? (wanted + batch.sequences - 1) / batch.sequences : 1;
  batch.width = std::clamp((batch.n + in_each - 1) / in_each, kNarrowest, kWidest);
  batch.width = (batch.width + kLine - 1) / kLine * kLine;
  batch.blocks = (batch.n + batch.width - 1) / batch.width;
  return batch;
}

// One block out of a batch, and where it begins in arrays of each shape, in real numbers.
struct Place {
  Block block;
  int64_t a, b, x, da;
};

Place Find(const Batch& batch, int64_t part, bool before, bool reverse) {
  const int64_t reals = batch.split ? 1 : batch.parts;  // of an entry of an array
  const int64_t row = batch.row * reals, s = part / batch.blocks;
  const int64_t from = part % batch.blocks * batch.width, column = from * reals;
  const int64_t of_a = batch.samples_of_a * row;
  Place place;
  place.block = {batch.samples,
                 std::min(batch.width, batch.n - from),
                 row,
                 batch.samples_of_a == batch.samples ? row : 0,
                 batch.split ? batch.n : 1,
                 before,
                 reverse};
  place.a = s / batch.sequences_per_a * of_a + column;
  place.b = s * batch.samples * row + column;
  place.x = s * row + column;
  place.da = s * of_a + column;
  return place;
}

// run(Numbers<...>()) for the kind of numbers that the arrays have.
template <typename Run>
ffi::Error ForNumbers(ffi::DataType type, bool split, Run run) {
  if (type == ffi::F32 && split) return run(Numbers<float, 2, 1>());
  if (type == ffi::F64 && split) return run(Numbers<double, 2, 1>());
  if (type == ffi::F32) return run(Numbers<float, 1, 1>());
  if (type == ffi::F64) return run(Numbers<double, 1, 1>());
  if (type == ffi::C64) return run(Numbers<float, 2, 2>());
  if (type == ffi::C128) return run(Numbers<double, 2, 2>());
  return ffi::Error::InvalidArgument("numbers of single or double precision only");
}

template <typename T>
T* Data(const ffi::AnyBuffer& buffer) {
  return static_cast<T*>(buffer.untyped_data());
}

ffi::Error RunStates(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::AnyBuffer x,
                     ffi::Result<ffi::AnyBuffer> states, ffi::Result<ffi::AnyBuffer> last,
                     bool before, bool reverse, bool split) {
  auto batch = Describe(pool, a, b, x, split);
  if (batch.has_error()) return batch.error();
  return ForNumbers(b.element_type(), split, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::Real;
    const T *a_ = Data<T>(a), *b_ = Data<T>(b);
    T *states_ = Data<T>(*states), *x_ = Data<T>(*last);
    std::copy_n(Data<T>(x), x.size_bytes() / sizeof(T), x_);
    zoo::Share(pool, batch->sequences * batch->blocks, batch->threads, [=](int64_t part) {
      const Place at = Find(*batch, part, before, reverse);
      zoo::OnWidest(StatesOf<N>{at.block, a_ + at.a, b_ + at.b, x_ + at.x, states_ + at.b});
    });
    return ffi::Error::Success();
  });
}

ffi::Error RunAdjoint(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer states,
                      ffi::AnyBuffer x, ffi::AnyBuffer dstates, ffi::AnyBuffer dlast,
                      ffi::Result<ffi::AnyBuffer> da, ffi::Result<ffi::AnyBuffer> db,
                      ffi::Result<ffi::AnyBuffer> dx, bool before, bool reverse, bool split) {
  auto batch = Describe(pool, a, dstates, x, split);
  if (batch.has_error()) return batch.error();
  return ForNumbers(dstates.element_type(), split, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::Real;
    const T *a_ = Data<T>(a), *states_ = Data<T>(states), *first_ = Data<T>(x);
    const T* dstates_ = Data<T>(dstates);
    T *da_ = Data<T>(*da), *db_ = Data<T>(*db), *later_ = Data<T>(*dx);
    std::copy_n(Data<T>(dlast), dlast.size_bytes() / sizeof(T), later_);
    if (batch->samples_of_a != batch->samples) std::fill_n(da_, da->size_bytes() / sizeof(T), T(0));
    zoo::Share(pool, batch->sequences * batch->blocks, batch->threads, [=](int64_t part) {
      const Place at = Find(*batch, part, before, reverse);
      zoo::OnWidest(AdjointOf<N>{at.block, a_ + at.a, states_ + at.b, first_ + at.x,
                                 dstates_ + at.b, later_ + at.x, da_ + at.da, db_ + at.b});
    });
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrence_states, RunStates,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // a
                                  .Arg<ffi::AnyBuffer>()  // b
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Ret<ffi::AnyBuffer>()  // states
                                  .Ret<ffi::AnyBuffer>()  // last
                                  .Attr<bool>("before")
                                  .Attr<bool>("reverse")
                                  .Attr<bool>("split"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(recurrence_adjoint, RunAdjoint,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // a
                                  .Arg<ffi::AnyBuffer>()  // states
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // dstates
                                  .Arg<ffi::AnyBuffer>()  // dlast
                                  .Ret<ffi::AnyBuffer>()  // da
                                  .Ret<ffi::AnyBuffer>()  // db
                                  .Ret<ffi::AnyBuffer>()  // dx
                                  .Attr<bool>("before")
                                  .Attr<bool>("reverse")
                                  .Attr<bool>("split"));
