// A block of threads on a CPU: barriers, what lanes of a warp show each other, and turns.
//
// Part of shim.h. A block's threads are fibers of one thread that take turns at barriers, in a
// fixed order; blocks run one after the other, the last block and the last thread first if
// TROUPE_SHIM_ORDER is `reverse`.
#pragma once

namespace shim {

const uint32_t WARP = 32;

// The shape of a launch.
struct Launch {
    uint3 grid, block;
    uint32_t shared_bytes;
    // As many of ThreadSanitizer's as a block has threads, if it watches; making one takes long.
    void** fibers;
};

// A kernel with its arguments, to be run later.
struct Work {
    virtual ~Work() {}
    // Returns 0, or 1 if shared memory was written beyond its end.
    virtual int run(const Launch& how) = 0;
    uint32_t most_threads;
};

[[noreturn]] static inline void fail(const char* what) {
    fprintf(stderr, "shim: %s\n", what);
    abort();
}

void yield();

// Where threads meet; those that have ended are waited for no longer. Two places take turns in
// telling what is ordered, so that nothing after a barrier seems to be before it.
struct Barrier {
    uint32_t expected = 0, arrived = 0, turn = 0;
    char order[2];

    // What has been written before is seen after, unless it is only a meeting.
    void wait(bool is_meeting = false);
    void leave();
};

// What the lanes of a warp show each other.
struct Warp {
    Barrier barrier;
    uint64_t slots[WARP];
};

// Products that may be under way in a warpgroup, and sums that they are added to.
const uint32_t PRODUCTS = 64;
const uint32_t SUMS = 8;

struct Product;

// Four warps that multiply together.
struct Warpgroup {
    Barrier barrier;
    Product* products[PRODUCTS] = {};
    uint32_t begun = 0;
};

// Who has written 16 bytes of a factor last, from 1 on, and how often it had shown its writes.
struct Written {
    uint32_t by, shows;
};

struct Block {
    Barrier barrier;
    std::vector<int> votes;
    std::vector<Warp> warps;
    std::vector<Warpgroup> warpgroups;
    uint8_t* shared;
    uint32_t shared_bytes;
    std::vector<Written> all_written;
    Written* written;

    Block(uint32_t threads, uint32_t shared_bytes)
        : votes(threads),
          warps((threads + WARP - 1) / WARP),
          warpgroups((threads + 127) / 128),
          shared_bytes(shared_bytes),
          all_written(shared_bytes / 16 + 1),
          written(all_written.data()) {
        barrier.expected = threads;
        for (uint32_t i = 0; i < threads; ++i) {
            ++warps[i / WARP].barrier.expected;
            ++warpgroups[i / 128].barrier.expected;
        }
    }
};

// A product that a thread has begun: its sums, its part of the left factor if that is in registers,
// and its group.
struct Pending {
    float* sums;
    const uint32_t* rows;
    uint32_t words[4], group;
};

// What a product has used of a thread's registers, and what was there at `open_products`.
struct Used {
    const void* at;
    uint32_t bytes;
    uint8_t content[512];
};

// Sums that products are added to, and what they will be.
struct Held {
    float* sums;
    uint32_t count, products;
    float values[128];
};

// A copy to shared memory that a thread has begun and not waited for.
struct Copy {
    uint8_t* to;
    const uint8_t* from;
    uint32_t there, group;
};

// A thread of a block.
struct Self {
    uint3 thread, block, block_dim, grid_dim;
    uint32_t index, threads;
    Block* all;
    Warp* warp;
    bool is_done;
    // Where it waits, and for what to be over.
    const Barrier* waits_at;
    uint32_t waits_for;
    // Its copies, and the groups of them that it has ended.
    std::vector<Copy> copies;
    uint32_t copy_groups;
    // Its products, their groups, and how often it has shown its writes to products.
    uint32_t products_begun, products_done, product_groups, shows;
    bool is_open;
    std::vector<Used> used;
    Pending pending[PRODUCTS];
    Held held[SUMS];
    char* stack;
#ifdef SHIM_WATCHED
    ucontext_t place;
    void* fiber;
#else
    jmp_buf place;
#endif
};

// The fibers of the launch that runs.
struct Fibers {
    Self* current;
    Self* all;
    const std::function<void()>* body;
    char begins, ends;
#ifdef SHIM_WATCHED
    ucontext_t home;
    void* fiber;
#else
    jmp_buf home;
#endif
};

inline thread_local Fibers fibers;

UNWATCHED Self& self() {
    return *fibers.current;
}

inline uint32_t lane() {
    return self().index % WARP;
}

UNWATCHED void Barrier::wait(bool is_meeting) {
    uint32_t mine = turn;
    if (!is_meeting) release(&order[mine % 2]);
    if (++arrived == expected) {
        arrived = 0;
        ++turn;
    }
    Self* own = fibers.current;
    own->waits_at = this, own->waits_for = mine;
    while (turn == mine) yield();
    own->waits_at = nullptr;
    if (!is_meeting) acquire(&order[mine % 2]);
}

UNWATCHED void Barrier::leave() {
    release(&order[turn % 2]);
    if (--expected == arrived && expected > 0) {
        arrived = 0;
        ++turn;
    }
}

// Every lane shows a word and sees those of all lanes until `close`. CUDA does not say that memory
// is ordered by it, so it is a meeting and no more.
UNWATCHED uint64_t* open_slots(uint64_t mine) {
    Warp* warp = self().warp;
    if (warp->barrier.expected != WARP) fail("a warp's function without all of its lanes");
    warp->slots[lane()] = mine;
    warp->barrier.wait(true);
    return warp->slots;
}

UNWATCHED void close_slots() {
    self().warp->barrier.wait(true);
}

template <typename T> UNWATCHED T from_lane(T mine, uint32_t other) {
    uint64_t word = 0;
    memcpy(&word, &mine, sizeof(T));
    T theirs;
    memcpy(&theirs, &open_slots(word)[other], sizeof(T));
    close_slots();
    return theirs;
}

// Bytes after shared memory that nobody may write.
const uint32_t GUARD = 64;

// Where shared memory begins, as prelude.cuh asks.
const uint32_t ALIGNMENT = 1024;

const size_t STACK_BYTES = 256 * 1024;

// Back to where the fiber was let go on.
UNWATCHED void yield() {
#ifdef SHIM_WATCHED
    Self* own = fibers.current;
    __tsan_switch_to_fiber(fibers.fiber, 1);
    swapcontext(&own->place, &fibers.home);
#else
    if (_setjmp(self().place) == 0) _longjmp(fibers.home, 1);
#endif
}

UNWATCHED void begin() {
    acquire(&fibers.begins);
    (*fibers.body)();
    if (!self().copies.empty()) fail("a thread ends before its copies");
    if (self().products_done < self().products_begun) fail("a thread ends before its products");
    self().all->barrier.leave();
    self().warp->barrier.leave();
    self().all->warpgroups[self().index / 128].barrier.leave();
    release(&fibers.ends);
    self().is_done = true;
    for (;;) yield();
}

// Runs a fiber until it gives way.
UNWATCHED void go_on(Self* own, bool is_new) {
    fibers.current = own;
#ifdef SHIM_WATCHED
    ucontext_t& context = own->place;
#else
    if (_setjmp(fibers.home) != 0) return;
    if (!is_new) _longjmp(own->place, 1);
    ucontext_t context;
#endif
    if (is_new) {
        getcontext(&context);
        context.uc_stack.ss_sp = own->stack;
        context.uc_stack.ss_size = STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, begin, 0);
    }
#ifdef SHIM_WATCHED
    __tsan_switch_to_fiber(own->fiber, 1);
    swapcontext(&fibers.home, &context);
#else
    setcontext(&context);
#endif
}

// Lets the threads of a block take turns until all have ended.
UNWATCHED void run_fibers(uint32_t threads, bool reverse) {
    release(&fibers.begins);
    uint32_t left = threads;
    for (bool is_new = true; left > 0; is_new = false) {
        left = 0;
        for (uint32_t i = 0; i < threads; ++i) {
            Self* own = fibers.all + (reverse ? threads - 1 - i : i);
            if (!is_new && own->is_done) continue;
            bool waits = own->waits_at != nullptr && own->waits_at->turn == own->waits_for;
            if (!waits) go_on(own, is_new);
            left += !own->is_done;
        }
    }
    acquire(&fibers.ends);
}

// Runs a block; false if somebody wrote behind its shared memory, which begins full of NaN.
inline bool run_block(const Launch& how, uint64_t at, uint32_t threads, bool reverse) {
    Block all(threads, how.shared_bytes);
    std::vector<uint8_t> bytes(how.shared_bytes + GUARD + ALIGNMENT, 0xFF);
    all.shared = bytes.data() + (ALIGNMENT - (uintptr_t)bytes.data() % ALIGNMENT) % ALIGNMENT;
    uint3 block = {(uint32_t)(at % how.grid.x), (uint32_t)(at / how.grid.x % how.grid.y),
                   (uint32_t)(at / how.grid.x / how.grid.y)};
    for (uint32_t i = 0; i < threads; ++i) {
        Self& own = fibers.all[i];
        own.thread = {i % how.block.x, i / how.block.x % how.block.y,
                      i / how.block.x / how.block.y};
        own.block = block, own.block_dim = how.block, own.grid_dim = how.grid;
        own.index = i, own.threads = threads, own.is_done = false;
        own.waits_at = nullptr, own.copy_groups = 0, own.is_open = false;
        own.products_begun = own.products_done = own.product_groups = own.shows = 0;
        for (Held& held : own.held) held.sums = nullptr;
        own.used.clear();
        own.all = &all, own.warp = &all.warps[i / WARP];
    }
    run_fibers(threads, reverse);
    for (uint32_t i = 0; i < GUARD; ++i) {
        if (all.shared[how.shared_bytes + i] != 0xFF) return false;
    }
    return true;
}

// Runs all blocks. Static shared memory and fibers are a thread's, which runs one grid at a time.
inline int run_grid(const Launch& how, const std::function<void()>& body) {
    const char* order = getenv("TROUPE_SHIM_ORDER");
    bool reverse = order != nullptr && strcmp(order, "reverse") == 0;
    uint64_t blocks = (uint64_t)how.grid.x * how.grid.y * how.grid.z;
    uint32_t threads = how.block.x * how.block.y * how.block.z;
    std::vector<Self> all(threads);
    static thread_local std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() < threads) stacks.emplace_back(new char[STACK_BYTES]);
    for (uint32_t i = 0; i < threads; ++i) all[i].stack = stacks[i].get();
    fibers.all = all.data(), fibers.body = &body;
#ifdef SHIM_WATCHED
    fibers.fiber = __tsan_get_current_fiber();
    for (uint32_t i = 0; i < threads; ++i) all[i].fiber = how.fibers[i];
#endif
    bool is_whole = true;
    for (uint64_t i = 0; i < blocks && is_whole; ++i) {
        is_whole = run_block(how, reverse ? blocks - 1 - i : i, threads, reverse);
    }
    return is_whole ? 0 : 1;
}

template <typename... A> struct Call : Work {
    void (*kernel)(A...);
    std::tuple<A...> arguments;

    template <size_t... I>
    Call(void (*kernel)(A...), void** from, std::index_sequence<I...>)
        : kernel(kernel), arguments(*(A*)from[I]...) {}

    int run(const Launch& how) override {
        return run_grid(how, [this] { std::apply(kernel, arguments); });
    }
};

template <typename... A> Work* prepare(uint32_t threads, void (*kernel)(A...), void** arguments) {
    Work* work = new Call<A...>(kernel, arguments, std::index_sequence_for<A...>());
    work->most_threads = threads;
    return work;
}

}  // namespace shim
