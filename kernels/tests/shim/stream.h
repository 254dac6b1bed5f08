// Streams and what is recorded in them; part of driver.cpp.
#pragma once

#include <chrono>
#include <deque>

#include "shim.h"

typedef std::chrono::steady_clock Clock;

// Work that a thread does in order, for a device.
struct Stream {
    const int device;
    std::mutex lock;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    bool is_busy = false, is_ending = false;
    std::thread worker{[this] { work(); }};

    void work() {
        std::unique_lock<std::mutex> held(lock);
        for (;;) {
            changed.wait(held, [&] { return is_ending || !queue.empty(); });
            if (queue.empty()) return;
            auto next = std::move(queue.front());
            queue.pop_front();
            is_busy = true;
            held.unlock();
            next();
            held.lock();
            is_busy = false;
            changed.notify_all();
        }
    }

    void push(std::function<void()> next) {
        std::lock_guard<std::mutex> held(lock);
        queue.push_back(std::move(next));
        changed.notify_all();
    }

    void drain() {
        std::unique_lock<std::mutex> held(lock);
        changed.wait(held, [&] { return queue.empty() && !is_busy; });
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

    void wait(uint64_t for_record) {
        std::unique_lock<std::mutex> held(lock);
        changed.wait(held, [&] { return reached >= for_record; });
    }
};
