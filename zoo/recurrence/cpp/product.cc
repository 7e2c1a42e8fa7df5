// Products of a matrix with few rows on the cores of a CPU, as XLA calls them (typed FFI).
//
// With few rows the product takes as long as the matrix takes to be read. XLA's reads it slower
// than memory could, on one core, and copies it before where it is one of a stack. Here each core
// reads the rows of its own outputs once, of the kind of number that they are stored in, and those
// of one matrix of a stack where they lie. Python's side: compiled.py.

#include <memory>

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kBlock = 64;  // outputs of a part

struct Half {  // bfloat16: the upper half of a single precision number
  uint16_t bits;
};

// A word of 32 bits holds so many numbers of a matrix. Their places in a vector of words are told
// apart by shifts, so numbers that are neighbours in memory are in different vectors: the inputs
// that they are multiplied with are laid out alike.
template <typename T>
constexpr int kPerWord = 4 / sizeof(T);

template <int n>
using Words = typename zoo::VectorsOf<n>::Integers;

template <int n>
INLINE zoo::Lanes<n> Reals(const Words<n>& bits) {
  zoo::Lanes<n> lanes;
  std::memcpy(&lanes, &bits, sizeof(lanes));
  return lanes;
}

template <int n>
INLINE zoo::Lanes<n> Numbers(const Words<n>& words, int, const float*) {
  return Reals<n>(words);
}

template <int n>
INLINE zoo::Lanes<n> Numbers(const Words<n>& words, int place, const Half*) {
  return Reals<n>(place ? words & static_cast<int32_t>(0xffff0000) : words << 16);
}

template <int n>
INLINE zoo::Lanes<n> Numbers(const Words<n>& words, int place, const int8_t*) {
  return __builtin_convertvector((words << (24 - 8 * place)) >> 24, zoo::Lanes<n>);
}

template <typename T>
struct Products {
  int64_t inputs, outputs, rows;
  const T* weight;
  const float* scale;  // of each output, or null
  const float* x;
  int64_t stride;  // from a row of x to the next
  float* y;
  int64_t part;

  // A tile of `across` outputs for `down` rows.
  template <int n, int across, int down>
  INLINE void Tile(int64_t output, int64_t row) const {
    constexpr int64_t step = n * kPerWord<T>;
    zoo::Lanes<n> sums[across * down] = {};
    const T* w = weight + output * inputs;
    const float* u = x + row * stride;
    int64_t i = 0;
    for (; i + step <= inputs; i += step) Add<n, across, down>(w + i, u + i, step, sums);
    if (i < inputs) Add<n, across, down>(w + i, u + i, inputs - i, sums);
    for (int o = 0; o < across; ++o) {
      const float by = scale ? scale[output + o] : 1.0f;
      for (int r = 0; r < down; ++r) {
        float lanes[n];
        zoo::Store<n>(sums[o * down + r], lanes);
        for (int width = n / 2; width; width /= 2) {
          for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
        }
        y[(row + r) * outputs + output + o] = by * lanes[0];
      }
    }
  }

  template <int n, int across, int down>
  INLINE void Add(const T* w, const float* u, int64_t count, zoo::Lanes<n>* sums) const {
    constexpr bool alone = kPerWord<T> == 1;  // x is as it was given, and ends with its row
    Words<n> words[across] = {};
    for (int o = 0; o < across; ++o) {
      if (count == n * kPerWord<T>) {
        std::memcpy(&words[o], w + o * inputs, sizeof(words[o]));
      } else {
        std::memcpy(&words[o], w + o * inputs, count * sizeof(T));
      }
    }
    for (int place = 0; place < kPerWord<T>; ++place) {
      zoo::Lanes<n> inputs_of[down];
      for (int r = 0; r < down; ++r) {
        inputs_of[r] = zoo::Load<n>(u + r * stride + place * n, alone ? count : n);
      }
      for (int o = 0; o < across; ++o) {
        const zoo::Lanes<n> weights = Numbers<n>(words[o], place, w);
        for (int r = 0; r < down; ++r) sums[o * down + r] += weights * inputs_of[r];
      }
    }
  }

  template <int n, int across>
  INLINE void Outputs(int64_t output) const {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) Tile<n, across, 4>(output, row);
    for (; row < rows; ++row) Tile<n, across, 1>(output, row);
  }

  template <int n>
  INLINE void On() const {
    const int64_t end = std::min((part + 1) * kBlock, outputs);
    int64_t output = part * kBlock;
    for (; output + 4 <= end; output += 4) Outputs<n, 4>(output);
    for (; output < end; ++output) Outputs<n, 1>(output);
  }
};

// Rows of x, laid out as vectors of words hold the numbers of a matrix, with zeros behind.
template <typename T>
struct LayOut {
  const float* x;
  int64_t rows, inputs, stride;
  float* to;

  template <int n>
  INLINE void On() const {
    constexpr int64_t per = kPerWord<T>, step = n * per;
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = x + row * inputs;
      float* own = to + row * stride;
      for (int64_t begin = 0; begin < stride; begin += step) {
        for (int64_t i = begin; i < begin + step; ++i) {
          own[begin + i % per * n + (i - begin) / per] = i < inputs ? from[i] : 0.0f;
        }
      }
    }
  }
};

using Floats = ffi::Buffer<ffi::F32>;

template <typename T>
void Run(ffi::ThreadPool& pool, int64_t index, ffi::AnyBuffer& weight, Floats& scale, Floats& x,
         ffi::Result<Floats>& y) {
  const auto of_weight = weight.dimensions();
  Products<T> products;
  products.outputs = of_weight[1];
  products.inputs = of_weight[2];
  products.rows = x.dimensions()[0];
  const int64_t numbers = products.outputs * products.inputs;
  products.weight = static_cast<const T*>(weight.untyped_data()) + index * numbers;
  products.scale = scale.element_count() ? scale.typed_data() + index * products.outputs : nullptr;
  products.x = x.typed_data();
  products.stride = products.inputs;
  std::unique_ptr<float[]> laid_out;
  if (kPerWord<T> > 1) {
    products.stride = (products.inputs + 63) / 64 * 64;
    laid_out.reset(new float[products.rows * products.stride]);
    zoo::OnWidest(LayOut<T>{products.x, products.rows, products.inputs, products.stride,
                            laid_out.get()});
    products.x = laid_out.get();
  }
  products.y = y->typed_data();
  const int64_t parts = (products.outputs + kBlock - 1) / kBlock;
  zoo::Share(pool, parts, zoo::Threads(pool, numbers), [products](int64_t part) {
    Products<T> own = products;
    own.part = part;
    zoo::OnWidest(own);
  });
}

ffi::Error RunProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> index, ffi::AnyBuffer weight,
                      Floats scale, Floats x, ffi::Result<Floats> y) {
  const auto of_weight = weight.dimensions(), of_x = x.dimensions();
  if (of_weight.size() != 3 || of_x.size() != 2 || of_x[1] != of_weight[2]) {
    return ffi::Error::InvalidArgument("weight [k p m], scale [k p] or [0], x [rows m]");
  }
  // as XLA's own slices: the nearest matrix that there is
  const int64_t k = std::min<int64_t>(std::max<int64_t>(index.typed_data()[0], 0),
                                      of_weight[0] - 1);
  switch (weight.element_type()) {
    case ffi::F32:
      Run<float>(pool, k, weight, scale, x, y);
      break;
    case ffi::BF16:
      Run<Half>(pool, k, weight, scale, x, y);
      break;
    case ffi::S8:
      Run<int8_t>(pool, k, weight, scale, x, y);
      break;
    default:
      return ffi::Error::InvalidArgument("weight of float32, bfloat16 or int8");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(few_products, RunProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S32>>()  // index
                                  .Arg<ffi::AnyBuffer>()         // weight
                                  .Arg<Floats>()                 // scale
                                  .Arg<Floats>()                 // x
                                  .Ret<Floats>());               // y
