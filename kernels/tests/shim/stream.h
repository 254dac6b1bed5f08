// Streams and what is recorded in them; part of driver.cpp.
#pragma once

#include <chrono>
#include <deque>

#include "shim.h"

typedef std::chrono::steady_clock Clock;

// How threads of the host tell each other is not seen, so calls of the driver are taken to be in
// order: each knows what those before it were told.
inline char known_to_host;

struct HostCall {
    HostCall() {
        shim::acquire(&known_to_host);
    }
    ~HostCall() {
        shim::release(&known_to_host);
    }
};

// Something that a stream is to do; what was before it was queued is before it.
struct Queued {
    std::function<void()> run;

    explicit Queued(std::function<void()> run) : run(std::move(run)) {
        shim::release(this);
    }
};

// Work that a thread does in order, for a device.
struct Stream {
    const int device;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<std::unique_ptr<Queued>> queue;
    bool is_busy = false, is_ending = false;
    // What has been done, for those who wait for all of it.
    char done;
    std::thread worker{[this] { work(); }};

    // The next work, or nothing if there will be none.
    std::unique_ptr<Queued> next() {
        shim::Unseen unseen;
        std::unique_lock<std::mutex> held(lock);
        is_busy = false;
        changed.notify_all();
        changed.wait(held, [&] { return is_ending || !queue.empty(); });
        if (queue.empty()) return nullptr;
        auto first = std::move(queue.front());
        queue.pop_front();
        is_busy = true;
        return first;
    }

    void work() {
        while (std::unique_ptr<Queued> own = next()) {
            shim::acquire(own.get());
            own->run();
            shim::release(&done);
            shim::Unseen unseen;
            own.reset();
        }
    }

    void push(std::function<void()> run) {
        HostCall call;
        auto last = std::make_unique<Queued>(std::move(run));
        shim::Unseen unseen;
        std::lock_guard<std::mutex> held(lock);
        queue.push_back(std::move(last));
        changed.notify_all();
    }

    void drain() {
        HostCall call;
        {
            shim::Unseen unseen;
            std::unique_lock<std::mutex> held(lock);
            changed.wait(held, [&] { return queue.empty() && !is_busy; });
        }
        shim::acquire(&done);
    }

    explicit Stream(int device) : device(device) {}

    ~Stream() {
        {
            std::lock_guard<std::mutex> held(lock);
            is_ending = true;
            changed.notify_all();
        }
        worker.join();
    }
};

// The last record that was asked for, and the last that a stream came to; what is queued still
// needs it after the event is destroyed.
struct Records {
    std::mutex lock;
    std::condition_variable changed;
    uint64_t asked = 0, reached = 0;
    Clock::time_point at;
    // What was before the records that were reached.
    char before;

    void reach(uint64_t record) {
        shim::release(&before);
        shim::Unseen unseen;
        std::lock_guard<std::mutex> held(lock);
        reached = record;
        at = Clock::now();
        changed.notify_all();
    }

    void wait(uint64_t for_record, bool is_untold = false) {
        {
            shim::Unseen unseen;
            std::unique_lock<std::mutex> held(lock);
            changed.wait(held, [&] { return reached >= for_record; });
        }
        if (!is_untold) shim::acquire(&before);
    }
};
