// A CUDA device for CPU builds of torch. It uses host memory and is synchronous.
//
// Its tensors are real tensors of device cuda:0, not a subclass: autograd, autocast, torch.compile and the
// operators of crnn_ext see what they see on a GPU. Operators of torch dispatch to kernels.py, which runs
// them on CPU tensors over the same memory.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <set>

namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::DataPtr;
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::DispatchKeySet;
using c10::Storage;
using c10::Stream;

const Device kCuda(DeviceType::CUDA, 0);

// The fill byte of new memory: NaN in floating point, -1 as an integer.
constexpr int kGarbage = 0xff;

DataPtr cpu_memory(size_t bytes) {
  DataPtr memory = c10::GetCPUAllocator()->allocate(bytes);
  if (bytes > 0) std::memset(memory.get(), kGarbage, bytes);
  return memory;
}

struct DeviceAllocator final : c10::Allocator {
  DataPtr allocate(size_t bytes) override {
    TORCH_CHECK(getpid() == process, "Cannot re-initialize CUDA in forked subprocess.");
    DataPtr memory = cpu_memory(bytes);
    void* const start = memory.get();
    {
      const std::lock_guard lock(mutex);
      if (in_capture) captured.insert(start);
    }
    const c10::DeleterFnPtr deleter = memory.get_deleter();
    return {start, memory.release_context(), deleter, kCuda};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  void begin_capture() {
    const std::lock_guard lock(mutex);
    in_capture = true;
    captured.clear();
  }
  void end_capture() {
    const std::lock_guard lock(mutex);
    in_capture = false;
  }
  bool is_captured(const void* start) {
    const std::lock_guard lock(mutex);
    return captured.count(start) > 0;
  }

  const pid_t process = getpid();
  std::mutex mutex;
  bool in_capture = false;
  std::set<const void*> captured;  // allocations of the most recent capture
};

// Pinned CPU memory, which records its allocations for is_pinned().
struct PinnedAllocator final : c10::Allocator {
  DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, c10::Device(DeviceType::CPU)};
    auto* const memory = new DataPtr(cpu_memory(bytes));
    const std::lock_guard lock(mutex);
    ends[memory->get()] = static_cast<char*>(memory->get()) + bytes;
    return {memory->get(), memory, &release, c10::Device(DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  bool has(const void* address) {
    const std::lock_guard lock(mutex);
    const auto after = ends.upper_bound(address);
    return after != ends.begin() && address < std::prev(after)->second;
  }

  static void release(void* context);

  std::mutex mutex;
  std::map<const void*, const void*> ends;  // start -> end of each allocation
};

// Never destroyed, because tensors outlive the static objects of a library.
DeviceAllocator& device_allocator = *new DeviceAllocator;
PinnedAllocator& pinned_allocator = *new PinnedAllocator;

void PinnedAllocator::release(void* context) {
  auto* const memory = static_cast<DataPtr*>(context);
  const std::lock_guard lock(pinned_allocator.mutex);
  pinned_allocator.ends.erase(memory->get());
  delete memory;
}

// The random number generator of cuda:0. kernels.py draws from a CPU generator in the same state.
struct Generator final : at::CPUGeneratorImpl {
  Generator() { device_ = kCuda; }
};

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  Device getDeviceFromPtr(void*) const override { return kCuda; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
  bool isPinnedPtr(const void* address) const override { return pinned_allocator.has(address); }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<Generator>(); }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static auto* const generator = new at::Generator(at::make_generator<Generator>());
    return *generator;
  }
  void deviceSynchronize(DeviceIndex) const override {}
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device) const override { return kCuda; }
  Device getDevice() const override { return kCuda; }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() <= 0, "CUDA error: invalid device ordinal");
  }
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, kCuda); }
  Stream getDefaultStream(Device) const override { return getStream(kCuda); }
  Stream getStreamFromGlobalPool(Device, bool) const override { return getStream(kCuda); }
  Stream getNewStream(Device, int) const override { return getStream(kCuda); }
  Stream exchangeStream(Stream) const override { return getStream(kCuda); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};

// `import torch` has already created the hooks of a build without CUDA, and torch looks them up only once.
// Both classes have only virtual functions, so Hooks is constructed in place over them.
static_assert(sizeof(Hooks) == sizeof(at::CUDAHooksInterface));
const auto* const hooks = new (const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks())) Hooks;

void release_storage(void* context) {
  delete static_cast<Storage*>(context);
}

// A storage of another device that aliases `storage` and keeps it alive.
Storage alias_storage(const Storage& storage, Device device) {
  DataPtr memory(storage.mutable_data(), new Storage(storage), &release_storage, device);
  c10::Allocator* allocator = device.is_cpu() ? c10::GetCPUAllocator() : &device_allocator;
  return {Storage::use_byte_size_t(), storage.nbytes(), std::move(memory), allocator, true};
}

// A tensor with the shape of `tensor` over `storage`, on the device of `key`; an inference tensor if `tensor`
// is one.
Tensor with_storage(const Tensor& tensor, Storage storage, c10::DispatchKey key) {
  const c10::BackendComponent backend = c10::toBackendComponent(key);
  DispatchKeySet keys = DispatchKeySet(key) | c10::getAutocastRelatedKeySetFromBackend(backend);
  if (!tensor.is_inference()) keys = keys | c10::getAutogradRelatedKeySetFromBackend(backend);
  Tensor made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage), keys,
                                                         tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                    tensor.storage_offset());
  return made;
}

// A CPU tensor over the memory of a device tensor.
Tensor host_view(const Tensor& tensor) {
  return with_storage(tensor, alias_storage(tensor.storage(), Device(DeviceType::CPU)),
                      c10::DispatchKey::CPU);
}

// The device storage of a CPU storage. It undoes host_view(), so that a view shares the storage of its base.
Storage device_storage(const Storage& storage) {
  const DataPtr& memory = storage.data_ptr();
  if (memory.get_deleter() == &release_storage) return *static_cast<Storage*>(memory.get_context());
  return alias_storage(storage, kCuda);
}

// A device tensor over the memory of a CPU tensor; the inverse of host_view().
Tensor device_view(const Tensor& tensor) {
  return with_storage(tensor, device_storage(tensor.storage()), c10::DispatchKey::CUDA);
}

// Gives a device tensor the shape and the memory of its host view after an operator changed them.
void adopt_layout(const Tensor& tensor, const Tensor& host) {
  if (tensor.storage().data() != host.storage().data() ||
      tensor.storage().nbytes() != host.storage().nbytes()) {
    const Storage& storage = tensor.storage();
    const Storage moved = alias_storage(host.storage(), kCuda);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(
        std::move(moved.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks()));
    storage.set_nbytes(host.storage().nbytes());
  }
  if (tensor.sizes() != host.sizes() || tensor.strides() != host.strides() ||
      tensor.storage_offset() != host.storage_offset())
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
}

void begin_capture() {
  device_allocator.begin_capture();
}
void end_capture() {
  device_allocator.end_capture();
}

// Fills memory that was allocated in the most recent capture.
void fill_with_garbage(const Tensor& tensor) {
  const Storage& storage = tensor.storage();
  if (device_allocator.is_captured(storage.data()))
    std::memset(storage.mutable_data(), kGarbage, storage.nbytes());
}

Tensor empty(IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!device || device->index() <= 0, "CUDA error: invalid device ordinal");
  return at::detail::empty_generic(size, &device_allocator, DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
  TORCH_CHECK(!device || device->index() <= 0, "CUDA error: invalid device ordinal");
  return at::detail::empty_strided_generic(
      size, stride, &device_allocator, DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

Tensor& set_storage(Tensor& tensor, Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  TORCH_CHECK(storage.device() == kCuda, "Expected a storage of ", kCuda, ", but found ", storage.device());
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return tensor;
}

Tensor& set_whole_storage(Tensor& tensor, Storage storage) {
  const int64_t elements = int64_t(storage.nbytes() / tensor.itemsize());
  return set_storage(tensor, std::move(storage), 0, {elements}, {1});
}

Tensor& set_tensor(Tensor& tensor, const Tensor& source) {
  return set_storage(tensor, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

}  // namespace

C10_REGISTER_GUARD_IMPL(CUDA, Guard)
REGISTER_ALLOCATOR(DeviceType::CUDA, &device_allocator)

TORCH_LIBRARY(pretend_cuda, m) {
  m.def("host_view(Tensor tensor) -> Tensor");
  m.def("device_view(Tensor tensor) -> Tensor");
  m.def("adopt_layout(Tensor tensor, Tensor host) -> ()");
  m.def("fill_with_garbage(Tensor tensor) -> ()");
  m.def("begin_capture() -> ()", &begin_capture);
  m.def("end_capture() -> ()", &end_capture);
}
TORCH_LIBRARY_IMPL(pretend_cuda, CUDA, m) {
  m.impl("host_view", &host_view);
  m.impl("adopt_layout", &adopt_layout);
  m.impl("fill_with_garbage", &fill_with_garbage);
}
TORCH_LIBRARY_IMPL(pretend_cuda, CPU, m) {
  m.impl("device_view", &device_view);
}
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
}
