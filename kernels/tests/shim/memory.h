// The devices of the emulation, and their memory; part of driver.cpp.
#pragma once

#include <atomic>
#include <map>

#include "stream.h"

#define API extern "C" __attribute__((visibility("default")))

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
};

struct Allocation {
    size_t bytes;
    int device;
};

static std::mutex all_lock;
static std::map<uint64_t, Allocation> allocations;
static std::map<uint64_t, size_t> pinned;
static size_t allocated[8];
static std::atomic<int> sticky = SUCCESS;
// A context is that of a device, and the current one that of a thread.
static char contexts[8];
static thread_local int current = -1;

static size_t number_from(const char* name, size_t otherwise) {
    const char* text = getenv(name);
    return text == nullptr ? otherwise : strtoull(text, nullptr, 10);
}

static size_t memory_bytes() {
    return number_from("TROUPE_SHIM_MEMORY", (size_t)1 << 30);
}

static int ready() {
    return current >= 0 ? sticky.load() : (int)INVALID_CONTEXT;
}

// Whether some bytes lie within one allocation of a device, or of any.
static bool is_allocated(uint64_t at, size_t bytes, int device = -1) {
    std::lock_guard<std::mutex> held(all_lock);
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    --next;
    bool is_there = device < 0 || device == next->second.device;
    return is_there && at + bytes <= next->first + next->second.bytes;
}

// Whether some bytes lie within one piece of pinned memory.
static bool is_pinned(const void* at, size_t bytes) {
    std::lock_guard<std::mutex> held(all_lock);
    auto next = pinned.upper_bound((uint64_t)at);
    if (next == pinned.begin()) return false;
    --next;
    return (uint64_t)at + bytes <= next->first + next->second;
}

API int cuMemGetInfo_v2(size_t* free, size_t* total) {
    HostCall call;
    std::lock_guard<std::mutex> held(all_lock);
    *total = memory_bytes(), *free = *total - allocated[current < 0 ? 0 : current];
    return ready();
}

API int cuMemAlloc_v2(uint64_t* at, size_t bytes) {
    HostCall call;
    if (ready() != SUCCESS) return ready();
    std::lock_guard<std::mutex> held(all_lock);
    if (bytes == 0) return INVALID_VALUE;
    if (allocated[current] + bytes > memory_bytes()) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(memory, 0xFF, bytes);
    allocated[current] += bytes;
    allocations[*at = (uint64_t)memory] = {bytes, current};
    return SUCCESS;
}

API int cuMemFree_v2(uint64_t at) {
    HostCall call;
    std::lock_guard<std::mutex> held(all_lock);
    auto found = allocations.find(at);
    if (found == allocations.end()) return INVALID_VALUE;
    allocated[found->second.device] -= found->second.bytes;
    allocations.erase(found);
    free((void*)at);
    return SUCCESS;
}

// For the emulation of NCCL: the thread's device, and whether memory is a device's.
API int troupe_shim_device() {
    return current;
}

API bool troupe_shim_is_allocated(uint64_t at, size_t bytes, int device) {
    return is_allocated(at, bytes, device);
}

