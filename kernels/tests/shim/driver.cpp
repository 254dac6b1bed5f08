// An emulation of libcuda.so.1 for tests: the functions that the device layer calls, and no others.
//
// Device memory is the host's; a stream is a queue that a thread of its own works off in order; a
// module is a library that the emulation of NVRTC has compiled, with its length before it. Each of
// TROUPE_SHIM_DEVICES devices (1, at most 8) has TROUPE_SHIM_MEMORY bytes (1 GiB) and is of
// TROUPE_SHIM_ARCH (90); if TROUPE_SHIM_FAULT is `untold`, ThreadSanitizer hears nothing of streams
// that wait for events. Where TROUPE_SHIM_CALLS is set, how often each call was made that takes a
// host time (launches by kernel, copies, products, events, waits) is told at exit. Nothing here is
// or resembles a GPU: what it shows is that calls come in a lawful order with lawful arguments.
#include <dlfcn.h>
#include <unistd.h>

#include <set>
#include <string>

#include "memory.h"

// How often each call was made.
struct Calls {
    std::mutex lock;
    std::map<std::string, uint64_t> by_name;

    void count(const std::string& name) {
        std::lock_guard<std::mutex> held(lock);
        ++by_name[name];
    }

    ~Calls() {
        if (getenv("TROUPE_SHIM_CALLS") == nullptr) return;
        for (const auto& [name, times] : by_name) {
            fprintf(stderr, "calls: %llu %s\n", (unsigned long long)times, name.c_str());
        }
    }
};

static Calls calls;

struct Event {
    std::shared_ptr<Records> records = std::make_shared<Records>();
};

struct Module {
    void* library;
};

// Files that a sanitizer may want to read until the end.
struct Leftovers {
    std::vector<std::string> paths;

    ~Leftovers() {
        for (const std::string& path : paths) unlink(path.c_str());
    }
};

struct Function {
    std::string name;
    shim::Work* (*prepare)(void**);
    uint32_t most_shared = 48 * 1024;
};

static std::set<Stream*> streams;
static std::map<void*, Function*> functions;

API int cuInit(unsigned) {
    HostCall call;
    return number_from("TROUPE_SHIM_DEVICES", 1) == 0 ? NO_DEVICE : SUCCESS;
}

API int cuDriverGetVersion(int* version) {
    HostCall call;
    *version = (int)number_from("TROUPE_SHIM_DRIVER", 13000);
    return SUCCESS;
}

API int cuDeviceGetCount(int* count) {
    HostCall call;
    *count = (int)number_from("TROUPE_SHIM_DEVICES", 1);
    return SUCCESS;
}

API int cuDeviceGet(int* device, int ordinal) {
    HostCall call;
    *device = ordinal;
    return ordinal < (int)number_from("TROUPE_SHIM_DEVICES", 1) ? SUCCESS : 101;
}

API int cuDeviceGetName(char* name, int length, int) {
    HostCall call;
    snprintf(name, length, "no GPU: an emulation for tests");
    return SUCCESS;
}

API int cuDeviceTotalMem_v2(size_t* bytes, int) {
    HostCall call;
    *bytes = memory_bytes();
    return SUCCESS;
}

API int cuDeviceGetAttribute(int* value, int attribute, int) {
    HostCall call;
    int arch = (int)number_from("TROUPE_SHIM_ARCH", 90);
    switch (attribute) {
        case 16: *value = 1; return SUCCESS;
        case 75: *value = arch / 10; return SUCCESS;
        case 76: *value = arch % 10; return SUCCESS;
        case 97: *value = 227 * 1024; return SUCCESS;
        default: return INVALID_VALUE;
    }
}

API int cuDevicePrimaryCtxRetain(void** context, int device) {
    HostCall call;
    *context = &contexts[device];
    return SUCCESS;
}

API int cuDevicePrimaryCtxRelease_v2(int) {
    HostCall call;
    return SUCCESS;
}

API int cuCtxSetCurrent(void* context) {
    HostCall call;
    current = context == nullptr ? -1 : (int)((char*)context - contexts);
    return SUCCESS;
}

API int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    *at = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*at == nullptr) return OUT_OF_MEMORY;
    std::lock_guard<std::mutex> held(all_lock);
    pinned[(uint64_t)*at] = bytes;
    return SUCCESS;
}

API int cuMemFreeHost(void* at) {
    HostCall call;
    std::lock_guard<std::mutex> held(all_lock);
    if (pinned.erase((uint64_t)at) == 0) return INVALID_VALUE;
    free(at);
    return SUCCESS;
}

static int copy(void* to, const void* from, size_t bytes, Stream* stream) {
    calls.count("copy");
    stream->push([=] { shim::copy_bytes(to, from, bytes); });
    return SUCCESS;
}

API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    if (is_pinned(from, bytes)) return copy((void*)to, from, bytes, stream);
    calls.count("copy");
    // Of memory that is not pinned the driver has a copy before it returns.
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    stream->push([=] { shim::copy_bytes((void*)to, staged->data(), bytes); });
    return SUCCESS;
}

API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    return is_allocated(from, bytes) ? copy(to, (void*)from, bytes, stream) : INVALID_VALUE;
}

API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    bool is_lawful = is_allocated(from, bytes) && is_allocated(to, bytes);
    return is_lawful ? copy((void*)to, (void*)from, bytes, stream) : INVALID_VALUE;
}

API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* stream) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    calls.count("fill");
    stream->push([=] { shim::fill_bytes((void*)to, value, bytes); });
    return SUCCESS;
}

API int cuStreamCreate(Stream** stream, unsigned) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    std::lock_guard<std::mutex> held(all_lock);
    streams.insert(*stream = new Stream(current));
    return SUCCESS;
}

API int cuStreamDestroy_v2(Stream* stream) {
    HostCall call;
    {
        std::lock_guard<std::mutex> held(all_lock);
        streams.erase(stream);
    }
    delete stream;  // What is queued may need another thread's calls to end.
    return SUCCESS;
}

API int cuStreamSynchronize(Stream* stream) {
    HostCall call;
    calls.count("wait of the host");
    stream->drain();
    return ready();
}

API int cuCtxSynchronize() {
    HostCall call;
    std::vector<Stream*> own;
    {
        std::lock_guard<std::mutex> held(all_lock);
        for (Stream* stream : streams) {
            if (stream->device == current) own.push_back(stream);
        }
    }
    for (Stream* stream : own) stream->drain();
    return ready();
}

API int cuEventCreate(Event** event, unsigned) {
    HostCall call;
    *event = new Event;
    return ready();
}

API int cuEventDestroy_v2(Event* event) {
    HostCall call;
    delete event;
    return SUCCESS;
}

API int cuEventRecord(Event* event, Stream* stream) {
    HostCall call;
    calls.count("event");
    auto records = event->records;
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(records->lock);
    uint64_t record = ++records->asked;
    stream->push([=] { records->reach(record); });
    return ready();
}

static uint64_t last_record(Records& records) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(records.lock);
    return records.asked;
}

API int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    HostCall call;
    calls.count("wait of a stream");
    auto records = event->records;
    uint64_t record = last_record(*records);
    const char* fault = getenv("TROUPE_SHIM_FAULT");
    bool is_untold = fault != nullptr && strcmp(fault, "untold") == 0;
    stream->push([=] { records->wait(record, is_untold); });
    return ready();
}

API int cuEventQuery(Event* event) {
    HostCall call;
    Records& records = *event->records;
    {
        shim::Unseen unseen;
        std::lock_guard<std::mutex> held(records.lock);
        if (records.reached != records.asked) return NOT_READY;
    }
    shim::acquire(&records.before);
    return ready();
}

API int cuEventSynchronize(Event* event) {
    HostCall call;
    calls.count("wait of the host");
    event->records->wait(last_record(*event->records));
    return ready();
}

API int cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    HostCall call;
    if (last_record(*start->records) == 0 || last_record(*end->records) == 0) return 400;
    if (cuEventQuery(start) != SUCCESS || cuEventQuery(end) != SUCCESS) return NOT_READY;
    auto apart = end->records->at - start->records->at;
    *milliseconds = std::chrono::duration<float, std::milli>(apart).count();
    return SUCCESS;
}

API int cuModuleLoadData(Module** module, const void* image) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    uint64_t head[2];
    memcpy(head, image, sizeof head);
    if (memcmp(head, "TRPSHIM", 8) != 0) return INVALID_IMAGE;
    char path[] = "/tmp/troupe-shim-XXXXXX";
    int file = mkstemp(path);
    const char* bytes = (const char*)image + sizeof head;
    bool is_written = write(file, bytes, head[1]) == (ssize_t)head[1];
    close(file);
    void* library = is_written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    static Leftovers leftovers;
    leftovers.paths.push_back(path);
    if (library == nullptr) fprintf(stderr, "shim: %s\n", dlerror());
    *module = new Module{library};
    return library == nullptr ? INVALID_IMAGE : SUCCESS;
}

API int cuModuleUnload(Module* module) {
    HostCall call;
    delete module;  // The library stays, as its symbols may be in a report of a sanitizer.
    return SUCCESS;
}

API int cuModuleGetFunction(Function** function, Module* module, const char* name) {
    HostCall call;
    std::lock_guard<std::mutex> held(all_lock);
    void* symbol = dlsym(module->library, ("prepare_" + std::string(name)).c_str());
    if (symbol == nullptr) return NOT_FOUND;
    Function*& known = functions[symbol];
    if (known == nullptr) known = new Function{name, (shim::Work * (*)(void**)) symbol};
    *function = known;
    return SUCCESS;
}

API int cuFuncSetAttribute(Function* function, int attribute, int value) {
    HostCall call;
    if (attribute != 8 || value > 227 * 1024) return INVALID_VALUE;
    function->most_shared = (uint32_t)value;
    return SUCCESS;
}

// Runs a launch on the thread of its stream.
static void launched(shim::Work& work, shim::Launch how) {
    static thread_local std::vector<void*> fibers;
#ifdef SHIM_WATCHED
    uint32_t threads = how.block.x * how.block.y * how.block.z;
    while (fibers.size() < threads) fibers.push_back(shim::__tsan_create_fiber(0));
#endif
    how.fibers = fibers.data();
    if (work.run(how) != 0) sticky = ILLEGAL_ADDRESS;
}

API int cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                       Stream* stream, void** arguments, void** extra) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    if (stream->device != current) return INVALID_HANDLE;
    shim::Launch how = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, nullptr};
    uint64_t threads = (uint64_t)block_x * block_y * block_z;
    bool is_grid = grid_x > 0 && grid_y > 0 && grid_z > 0 && grid_y < 65536 && grid_z < 65536;
    if (!is_grid || threads == 0 || threads > 1024 || extra != nullptr) return INVALID_VALUE;
    std::shared_ptr<shim::Work> work(function->prepare(arguments));
    if (threads > work->most_threads) return 701;
    if (shared > function->most_shared) return INVALID_VALUE;
    calls.count("launch of " + function->name);
    stream->push([=] { launched(*work, how); });
    return SUCCESS;
}

// For the emulation of cuBLASLt, whose work is queued like any other.
API int troupe_shim_push(Stream* stream, std::function<void()>* work) {
    if (ready() != SUCCESS) return 14;
    calls.count("work of a library");
    stream->push(*work);
    return 0;
}

API int cuGetErrorName(int error, const char** name) {
    HostCall call;
    static const std::map<int, const char*> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},         {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},         {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return SUCCESS;
}

API int cuGetErrorString(int, const char** text) {
    HostCall call;
    *text = "as the emulation for tests says";
    return SUCCESS;
}
