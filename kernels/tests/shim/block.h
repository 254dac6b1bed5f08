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

// Runs the threads of a block.
inline void run_fibers(std::vector<Self>& all, const std::function<void()>& body, bool reverse) {
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

#endif

// A block that is about to run, its shared memory full of NaN.
struct Round {
    Block all;
    std::vector<uint8_t> bytes;
    std::vector<Self> selves;

    Round(const Launch& how, uint64_t at, uint32_t threads)
        : all(threads), bytes(how.shared_bytes + GUARD + 16, 0xFF), selves(threads) {
        uint3 block = {(uint32_t)(at % how.grid.x), (uint32_t)(at / how.grid.x % how.grid.y),
                       (uint32_t)(at / how.grid.x / how.grid.y)};
        all.shared = bytes.data() + (16 - (uintptr_t)bytes.data() % 16) % 16;
        for (uint32_t i = 0; i < threads; ++i) {
            selves[i].thread = {i % how.block.x, i / how.block.x % how.block.y,
                                i / how.block.x / how.block.y};
            selves[i].block = block;
            selves[i].block_dim = how.block, selves[i].grid_dim = how.grid;
            selves[i].index = i, selves[i].votes_cast = 0, selves[i].is_done = false;
            selves[i].all = &all, selves[i].warp = &all.warps[i / WARP];
        }
    }

    // Whether nobody wrote behind shared memory.
    bool is_whole(const Launch& how) const {
        for (uint32_t i = 0; i < GUARD; ++i) {
            if (all.shared[how.shared_bytes + i] != 0xFF) return false;
        }
        return true;
    }
};

#ifdef SHIM_THREADS

// A thread of its own for each thread of a block; the first makes block after block.
inline bool run_blocks(const Launch& how, uint64_t blocks, uint32_t threads,
                       const std::function<void()>& body, bool reverse) {
    std::unique_ptr<Round> round;
    Barrier meeting;
    meeting.expected = threads;
    bool is_whole = true;
    auto work = [&](uint32_t own) {
        for (uint64_t i = 0; i < blocks; ++i) {
            if (own == 0) round.reset(new Round(how, reverse ? blocks - 1 - i : i, threads));
            meeting.wait();
            current = &round->selves[own];
            body();
            current->all->barrier.leave();
            current->warp->barrier.leave();
            meeting.wait();
            if (own == 0) is_whole = is_whole && round->is_whole(how);
        }
    };
    std::vector<std::thread> all;
    for (uint32_t i = 0; i < threads; ++i) all.emplace_back(work, reverse ? threads - 1 - i : i);
    for (auto& thread : all) thread.join();
    return is_whole;
}

#else

inline bool run_blocks(const Launch& how, uint64_t blocks, uint32_t threads,
                       const std::function<void()>& body, bool reverse) {
    for (uint64_t i = 0; i < blocks; ++i) {
        Round round(how, reverse ? blocks - 1 - i : i, threads);
        run_fibers(round.selves, body, reverse);
        if (!round.is_whole(how)) return false;
    }
    return true;
}

#endif

inline int run_grid(const Launch& how, const std::function<void()>& body) {
    // Static shared memory is the module's, so its launches go one by one.
    static std::mutex one_by_one;
    std::lock_guard<std::mutex> held(one_by_one);
    const char* order = getenv("TROUPE_SHIM_ORDER");
    bool reverse = order != nullptr && strcmp(order, "reverse") == 0;
    uint64_t blocks = (uint64_t)how.grid.x * how.grid.y * how.grid.z;
    uint32_t threads = how.block.x * how.block.y * how.block.z;
    return run_blocks(how, blocks, threads, body, reverse) ? 0 : 1;
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
