// A block of threads on a CPU: barriers, what lanes of a warp show each other, and turns.
//
// Part of shim.h. A block's threads are fibers of one thread that take turns in a fixed order, or,
// with SHIM_THREADS, threads of their own that ThreadSanitizer watches. Blocks run one after the
// other, the last one first if TROUPE_SHIM_ORDER is `reverse`.
#pragma once

namespace shim {

const uint32_t WARP = 32;

// The shape of a launch.
struct Launch {
    uint3 grid, block;
    uint32_t shared_bytes;
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

#ifdef SHIM_THREADS

// Where threads meet; those that have ended are waited for no longer.
struct Barrier {
    std::mutex lock;
    std::condition_variable turned;
    uint32_t expected = 0, arrived = 0, turn = 0;

    void turn_over() {
        arrived = 0;
        ++turn;
        turned.notify_all();
    }

    void wait() {
        std::unique_lock<std::mutex> held(lock);
        uint32_t mine = turn;
        if (++arrived == expected) return turn_over();
        turned.wait(held, [&] { return turn != mine; });
    }

    void leave() {
        std::unique_lock<std::mutex> held(lock);
        if (--expected == arrived && expected > 0) turn_over();
    }
};

#else

void yield();

struct Barrier {
    uint32_t expected = 0, arrived = 0, turn = 0;

    void turn_over() {
        arrived = 0;
        ++turn;
    }

    void wait() {
        uint32_t mine = turn;
        if (++arrived == expected) return turn_over();
        while (turn == mine) yield();
    }

    void leave() {
        if (--expected == arrived && expected > 0) turn_over();
    }
};

#endif

// What the lanes of a warp show each other.
struct Warp {
    Barrier barrier;
    uint64_t slots[WARP];
};

struct Block {
    Barrier barrier;
    int votes[2] = {0, 0};
    std::mutex lock;
    std::vector<Warp> warps;
    uint8_t* shared;

    Block(uint32_t threads) : warps((threads + WARP - 1) / WARP) {
        barrier.expected = threads;
        for (uint32_t i = 0; i < threads; ++i) ++warps[i / WARP].barrier.expected;
    }
};

// A thread of a block.
struct Self {
    uint3 thread, block, block_dim, grid_dim;
    uint32_t index, votes_cast;
    Block* all;
    Warp* warp;
    jmp_buf place;
    bool is_done;
};

#ifdef SHIM_THREADS
inline thread_local Self* current;
#else
inline Self* current;
#endif

inline Self& self() {
    return *current;
}

inline uint32_t lane() {
    return self().index % WARP;
}

// Every lane shows a word and sees those of all lanes until `close`.
inline uint64_t* open_slots(uint64_t mine) {
    Warp* warp = self().warp;
    if (warp->barrier.expected != WARP) fail("a warp's function without all of its lanes");
    warp->slots[lane()] = mine;
    warp->barrier.wait();
    return warp->slots;
}

inline void close_slots() {
    self().warp->barrier.wait();
}

template <typename T> T from_lane(T mine, uint32_t other) {
    uint64_t word = 0;
    memcpy(&word, &mine, sizeof(T));
    T theirs;
    memcpy(&theirs, &open_slots(word)[other], sizeof(T));
    close_slots();
    return theirs;
}

// Bytes after shared memory that nobody may write.
const uint32_t GUARD = 64;

#ifndef SHIM_THREADS

// Fibers: each has a stack, and they take turns in a fixed order.
const size_t STACK_BYTES = 256 * 1024;

struct Fibers {
    std::vector<Self> all;
    std::vector<std::unique_ptr<char[]>> stacks;
    jmp_buf home;
    ucontext_t start;
    const std::function<void()>* body;
};

inline Fibers fibers;

inline void begin() {
    (*fibers.body)();
    self().is_done = true;
    self().all->barrier.leave();
    self().warp->barrier.leave();
    _longjmp(fibers.home, 1);
}

inline void yield() {
    if (_setjmp(self().place) == 0) _longjmp(fibers.home, 1);
}

// Runs the fiber until it gives way.
inline void go_on(Self& fiber, size_t index, bool is_new) {
    current = &fiber;
    if (_setjmp(fibers.home) != 0) return;
    if (!is_new) _longjmp(fiber.place, 1);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fibers.stacks[index].get();
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, begin, 0);
    setcontext(&context);
}

inline void run_threads(std::vector<Self>& all, const std::function<void()>& body, bool reverse) {
    while (fibers.stacks.size() < all.size()) {
        fibers.stacks.emplace_back(new char[STACK_BYTES]);
    }
    fibers.body = &body;
    size_t left = all.size();
    for (bool is_new = true; left > 0; is_new = false) {
        left = 0;
        for (size_t i = 0; i < all.size(); ++i) {
            size_t index = reverse ? all.size() - 1 - i : i;
            if (!is_new && all[index].is_done) continue;
            go_on(all[index], index, is_new);
            left += !all[index].is_done;
        }
    }
}

#else

inline void run_threads(std::vector<Self>& all, const std::function<void()>& body, bool reverse) {
    std::vector<std::thread> threads;
    for (size_t i = 0; i < all.size(); ++i) {
        Self* own = &all[reverse ? all.size() - 1 - i : i];
        threads.emplace_back([own, &body] {
            current = own;
            body();
            own->all->barrier.leave();
            own->warp->barrier.leave();
        });
    }
    for (auto& thread : threads) thread.join();
}

#endif

inline int run_block(const Launch& how, uint3 block, const std::function<void()>& body,
                     bool reverse) {
    uint32_t threads = how.block.x * how.block.y * how.block.z;
    Block all(threads);
    std::vector<uint8_t> bytes(how.shared_bytes + GUARD + 16, 0xFF);
    all.shared = bytes.data() + (16 - (uintptr_t)bytes.data() % 16) % 16;
    std::vector<Self> selves(threads);
    for (uint32_t i = 0; i < threads; ++i) {
        uint3 thread = {i % how.block.x, i / how.block.x % how.block.y,
                        i / how.block.x / how.block.y};
        selves[i].thread = thread, selves[i].block = block;
        selves[i].block_dim = how.block, selves[i].grid_dim = how.grid;
        selves[i].index = i, selves[i].votes_cast = 0, selves[i].is_done = false;
        selves[i].all = &all, selves[i].warp = &all.warps[i / WARP];
    }
    run_threads(selves, body, reverse);
    for (uint32_t i = 0; i < GUARD; ++i) {
        if (all.shared[how.shared_bytes + i] != 0xFF) return 1;
    }
    return 0;
}

inline int run_grid(const Launch& how, const std::function<void()>& body) {
    // Static shared memory is the module's, so its launches go one by one.
    static std::mutex one_by_one;
    std::lock_guard<std::mutex> held(one_by_one);
    const char* order = getenv("TROUPE_SHIM_ORDER");
    bool reverse = order != nullptr && strcmp(order, "reverse") == 0;
    uint64_t blocks = (uint64_t)how.grid.x * how.grid.y * how.grid.z;
    for (uint64_t i = 0; i < blocks; ++i) {
        uint64_t at = reverse ? blocks - 1 - i : i;
        uint3 block = {(uint32_t)(at % how.grid.x), (uint32_t)(at / how.grid.x % how.grid.y),
                       (uint32_t)(at / how.grid.x / how.grid.y)};
        if (run_block(how, block, body, reverse) != 0) return 1;
    }
    return 0;
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
