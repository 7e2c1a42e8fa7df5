// Products of a matrix with few rows on the cores of a CPU, as XLA calls them (typed FFI).
//
// With few rows the product takes as long as the matrix takes to be read. XLA's reads it slower
// than memory could, on one core, and copies it before where it is one of a stack. Here each core
// reads the rows of its own outputs once, of the kind of number that they are stored in, and those
// of one matrix of a stack where they lie. Python's side: compiled.py.

#include <type_traits>

#include "lanes.h"
#include "share.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kBlock = 64;  // outputs of a part

struct Half {  // bfloat16: the upper half of a single precision number
  uint16_t bits;
};

template <int n>
INLINE zoo::Lanes<n> Read(const float* from, int64_t count) {
  return zoo::Load<n>(from, count);
}

template <int n>
INLINE zoo::Lanes<n> Read(const int8_t* from, int64_t count) {
  typedef int8_t Bytes __attribute__((vector_size(n)));
  using Integers = typename zoo::VectorsOf<n>::Integers;
  Bytes bytes = {};
  if (count >= n) {
    std::memcpy(&bytes, from, n);
  } else {
    std::memcpy(&bytes, from, count);
  }
  return __builtin_convertvector(__builtin_convertvector(bytes, Integers), zoo::Lanes<n>);
}

template <int n>
INLINE zoo::Lanes<n> Read(const Half* from, int64_t count) {
  typedef uint16_t Words __attribute__((vector_size(2 * n)));
  using Integers = typename zoo::VectorsOf<n>::Integers;
  Words words = {};
  if (count >= n) {
    std::memcpy(&words, from, 2 * n);
  } else {
    std::memcpy(&words, from, 2 * count);
  }
  const Integers bits = __builtin_convertvector(words, Integers) << 16;
  zoo::Lanes<n> lanes;
  std::memcpy(&lanes, &bits, sizeof(lanes));
  return lanes;
}

template <typename T>
struct Products {
  int64_t inputs, outputs, rows;
  const T* weight;
  const float* scale;  // of each output, or null
  const float* x;
  float* y;
  int64_t part;

  // A tile of `across` outputs for `down` rows.
  template <int n, int across, int down>
  INLINE void Tile(int64_t output, int64_t row) const {
    zoo::Lanes<n> sums[across * down] = {};
    const T* w = weight + output * inputs;
    const float* u = x + row * inputs;
    int64_t i = 0;
    for (; i + n <= inputs; i += n) Add<n, across, down>(w + i, u + i, n, sums);
    if (i < inputs) Add<n, across, down>(w + i, u + i, inputs - i, sums);
    for (int o = 0; o < across; ++o) {
      const float by = scale ? scale[output + o] : 1.0f;
      for (int r = 0; r < down; ++r) {
        float lanes[n], total = 0;
        zoo::Store<n>(sums[o * down + r], lanes);
        for (int width = n / 2; width; width /= 2) {
          for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
        }
        total = lanes[0];
        y[(row + r) * outputs + output + o] = by * total;
      }
    }
  }

  template <int n, int across, int down>
  INLINE void Add(const T* w, const float* u, int64_t count, zoo::Lanes<n>* sums) const {
    zoo::Lanes<n> inputs_of[down];
    for (int r = 0; r < down; ++r) inputs_of[r] = zoo::Load<n>(u + r * inputs, count);
    for (int o = 0; o < across; ++o) {
      const zoo::Lanes<n> weights = Read<n>(w + o * inputs, count);
      for (int r = 0; r < down; ++r) sums[o * down + r] += weights * inputs_of[r];
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
