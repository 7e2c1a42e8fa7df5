// Work shared out among cores, and sums of what each of them makes.

#ifndef ZOO_CPP_SHARE_H_
#define ZOO_CPP_SHARE_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "real.h"
#include "xla/ffi/api/ffi.h"

namespace zoo {
inline namespace ZOO_KIND {

constexpr int64_t kAlone = 1 << 15;  // numbers that are not worth waking another core for

// How many cores to share so many numbers among.
inline int64_t Threads(xla::ffi::ThreadPool& pool, int64_t numbers) {
  return numbers < kAlone ? 1 : std::max<int64_t>(pool.num_threads(), 1);
}

// Calls work(0) to work(parts - 1), each once, on this core and on those of the pool that are idle.
// It waits for work that has begun, never for the pool, which may be busy with its caller.
inline void Share(xla::ffi::ThreadPool& pool, int64_t parts, int64_t threads,
                  std::function<void(int64_t)> work) {
  struct Job {
    std::function<void(int64_t)> work;
    int64_t parts;
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;

    void Help() {
      for (int64_t part; (part = next++) < parts;) {
        work(part);
        std::lock_guard<std::mutex> lock(mutex);
        if (++done == parts) all_done.notify_all();
      }
    }
  };
  auto job = std::make_shared<Job>();
  job->work = std::move(work);
  job->parts = parts;
  for (int64_t other = 1; other < std::min(threads, parts); ++other) {
    pool.Schedule([job] { job->Help(); });
  }
  job->Help();
  std::unique_lock<std::mutex> lock(job->mutex);
  job->all_done.wait(lock, [&] { return job->done == parts; });
}

// An array that several tasks have something to add to: each has a copy, the first the array
// itself.
class Copies {
 public:
  Copies(xla::ffi::Result<xla::ffi::Buffer<kReal>> array, int64_t copies)
      : array_(array->typed_data()),
        size_(array->element_count()),
        copies_(copies),
        room_(copies > 1 ? new Real[size_ * (copies - 1)] : nullptr) {}

  Real* At(int64_t copy) const { return copy ? room_.get() + (copy - 1) * size_ : array_; }

  void AddUp(xla::ffi::ThreadPool& pool) const {
    if (copies_ == 1) return;
    const int64_t blocks = (size_ + kBlock - 1) / kBlock;
    Share(pool, blocks, Threads(pool, size_ * copies_), [this](int64_t block) {
      const int64_t begin = block * kBlock, end = std::min(begin + kBlock, size_);
      for (int64_t copy = 1; copy < copies_; ++copy) {
        const Real* more = At(copy);
        for (int64_t i = begin; i < end; ++i) array_[i] += more[i];
      }
    });
  }

 private:
  static constexpr int64_t kBlock = 1 << 12;
  Real* array_;
  int64_t size_, copies_;
  std::unique_ptr<Real[]> room_;
};

}  // namespace ZOO_KIND
}  // namespace zoo

#endif  // ZOO_CPP_SHARE_H_
