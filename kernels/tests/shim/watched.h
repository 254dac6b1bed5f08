// What ThreadSanitizer is told, if SHIM_WATCHED has it watch: of fibers, and of what barriers,
// queues and events order. Accesses that only turns of fibers, or locks of the emulation, keep
// apart are races.
//
// Part of shim.h.
#pragma once

namespace shim {

#ifdef SHIM_WATCHED

extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* at);
void __tsan_release(void* at);
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}

// What the turns are made of is no part of a kernel.
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline)) inline

// How many `Unseen` a thread has.
inline thread_local int unseen = 0;

inline void begin_unseen() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

inline void end_unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
}

// While there is one, locks order nothing and accesses are not looked at: what the emulation needs
// to work, and no GPU has.
struct Unseen {
    Unseen() {
        begin_unseen();
        ++unseen;
    }
    ~Unseen() {
        --unseen;
        end_unseen();
    }
};

// Within, what a GPU does, and is looked at again.
struct Seen {
    Seen() {
        for (int i = 0; i < unseen; ++i) end_unseen();
    }
    ~Seen() {
        for (int i = 0; i < unseen; ++i) begin_unseen();
    }
};

// All that was before a release is before what follows an acquire at the same place.
inline void release(void* at) {
    Seen seen;
    __tsan_release(at);
}

inline void acquire(void* at) {
    Seen seen;
    __tsan_acquire(at);
}

#else

#define UNWATCHED inline

inline void release(void*) {}

inline void acquire(void*) {}

struct Unseen {
    Unseen() {}
    ~Unseen() {}
};

struct Seen {
    Seen() {}
    ~Seen() {}
};

#endif

}  // namespace shim
