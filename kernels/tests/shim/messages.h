// How messages between ranks meet, and are queued on streams; part of nccl.cpp.
#pragma once

#include <map>
#include <string>

#include "stream.h"

enum Status {
    SUCCESS = 0,
    SYSTEM_ERROR = 2,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    REMOTE_ERROR = 6,
    IN_PROGRESS = 7,
};

enum Kind { SEND, RECEIVE, GATHER, SCATTER };

struct Communicator;

// One side of a message, or one rank's part of a gather or a sum.
struct Part {
    Kind kind;
    Communicator* owner;
    const char* from;
    char* to;
    size_t count;
    int format, peer;
    std::shared_ptr<Part> other;
    bool is_there = false, is_done = false;
    // What was before it, and with it.
    char before = 0, after = 0;
};

typedef std::shared_ptr<Part> PartPtr;

// Parts of one group on one stream.
struct Batch {
    Stream* stream;
    std::vector<PartPtr> parts;
};

// From one rank to another.
struct Channel {
    std::deque<PartPtr> sends, receives;
    bool has_sent = false, has_received = false;
};

struct World {
    std::vector<Communicator*> members;
    size_t joined = 0, finishing = 0;
    std::map<std::pair<int, int>, Channel> channels;
    // Gathers and sums, in the order that every rank has to ask for them in.
    std::vector<std::vector<PartPtr>> rounds;
};

struct Communicator {
    World* world;
    int rank, device;
    int error = SUCCESS;
    std::string text = "";
    bool is_out = false, is_finishing = false;
    // Whether nobody has looked since the last call, and whether somebody has seen it done.
    bool is_fresh = true, was_ready = false;
    size_t rounds = 0, groups = 0, open = 0;
    // What is not queued yet, since a connection is missing.
    std::deque<Batch> waiting = {};
};

// One lock for all; handles stay, so that a call on one that has ended is noticed.
static std::mutex lock;
static std::condition_variable changed;
static std::map<std::string, World> worlds;
static thread_local int depth = 0;
static thread_local std::vector<std::pair<Stream*, PartPtr>> asked;
// The first refusal in a group, of which nothing is then asked for.
static thread_local int refusal = SUCCESS;

static bool is_faulty(const char* fault, int rank) {
    const char* text = getenv("TROUPE_SHIM_FAULT");
    return text != nullptr && text == std::string(fault) + "=" + std::to_string(rank);
}

static int refused(Communicator* own, int status, const std::string& text) {
    own->text = text;
    return refusal = status;
}

// An error that a rank is told when it asks.
static void fail(Communicator* own, int status, const std::string& text) {
    if (own->error != SUCCESS || own->is_out) return;
    own->error = status, own->text = text;
    changed.notify_all();
}

static size_t bytes_of(int format) {
    switch (format) {
        case 0: case 1: return 1;
        case 6: case 9: return 2;
        case 2: case 3: case 7: return 4;
        default: return 8;
    }
}

static std::string described(const Part& part) {
    return std::to_string(part.count) + " of format " + std::to_string(part.format);
}

// Makes two sides one message, if they fit each other.
static void join(const PartPtr& send, const PartPtr& receive) {
    send->other = receive, receive->other = send;
    if (send->count == receive->count && send->format == receive->format) return;
    std::string text = "rank " + std::to_string(send->owner->rank) + " sends " + described(*send) +
                       ", rank " + std::to_string(receive->owner->rank) + " receives " +
                       described(*receive);
    fail(send->owner, INVALID_USAGE, text);
    fail(receive->owner, INVALID_USAGE, text);
}

static void post_round(const PartPtr& part) {
    Communicator* own = part->owner;
    World& world = *own->world;
    size_t number = own->rounds++;
    if (world.rounds.size() <= number) world.rounds.resize(number + 1);
    auto& round = world.rounds[number];
    round.resize(world.members.size());
    round[own->rank] = part;
    for (const PartPtr& other : round) {
        if (other == nullptr) continue;
        bool is_same = other->kind == part->kind && other->format == part->format;
        if (is_same && other->count == part->count) continue;
        std::string text = "ranks ask for different gathers or sums: " + described(*other) +
                           " and " + described(*part);
        for (Communicator* member : world.members) fail(member, INVALID_USAGE, text);
    }
}

static Channel& channel_of(const Part& part) {
    int own = part.owner->rank;
    auto& channels = part.owner->world->channels;
    return part.kind == SEND ? channels[{own, part.peer}] : channels[{part.peer, own}];
}

static void post(const PartPtr& part) {
    ++part->owner->open;
    if (part->kind == GATHER || part->kind == SCATTER) return post_round(part);
    Channel& channel = channel_of(*part);
    (part->kind == SEND ? channel.has_sent : channel.has_received) = true;
    (part->kind == SEND ? channel.sends : channel.receives).push_back(part);
    while (!channel.sends.empty() && !channel.receives.empty()) {
        join(channel.sends.front(), channel.receives.front());
        channel.sends.pop_front(), channel.receives.pop_front();
    }
}

static bool is_connected(const Part& part) {
    if (part.kind == SEND) return channel_of(part).has_received;
    if (part.kind == RECEIVE) return channel_of(part).has_sent;
    for (const PartPtr& other : part.owner->world->rounds[0]) {
        if (other == nullptr) return false;
    }
    return true;
}

static void done(Part& part) {
    shim::release(&part.after);
    part.is_done = true;
    --part.owner->open;
}

// The part of a sum that a rank gets begins with its neighbour and ends with itself, as in a ring.
static void add_up(const std::vector<PartPtr>& round, size_t rank) {
    size_t ranks = round.size(), count = round[rank]->count;
    for (size_t i = 0; i < count; ++i) {
        float sum = 0;
        for (size_t step = 1; step <= ranks; ++step) {
            sum += ((const float*)round[(rank + step) % ranks]->from)[rank * count + i];
        }
        ((float*)round[rank]->to)[i] = sum;
    }
}

static void run_round(const std::vector<PartPtr>& round) {
    for (const PartPtr& part : round) {
        if (part == nullptr || !part->is_there || part->owner->is_out) return;
        shim::acquire(&part->before);
    }
    for (size_t rank = 0; rank < round.size(); ++rank) {
        shim::Seen seen;
        if (round[rank]->kind == SCATTER) add_up(round, rank);
        for (size_t from = 0; round[rank]->kind == GATHER && from < round.size(); ++from) {
            size_t bytes = round[from]->count * bytes_of(round[from]->format);
            shim::copy_bytes(round[rank]->to + from * bytes, round[from]->from, bytes);
        }
    }
    for (const PartPtr& part : round) done(*part);
}

// Does what both or all sides have come to.
static void advance(Part& part) {
    if (part.kind == GATHER || part.kind == SCATTER) {
        for (auto& round : part.owner->world->rounds) {
            if (round[part.owner->rank].get() == &part) run_round(round);
        }
        return;
    }
    Part* other = part.other.get();
    if (other == nullptr || !other->is_there || other->owner->is_out) return;
    shim::acquire(&other->before);
    Part &send = part.kind == SEND ? part : *other, &receive = part.kind == SEND ? *other : part;
    {
        shim::Seen seen;
        shim::copy_bytes(receive.to, send.from, part.count * bytes_of(part.format));
    }
    done(part), done(*other);
}

// What a stream does when it comes to the parts of a group.
static void run(Communicator* own, const std::vector<PartPtr>& parts, bool is_broken) {
    for (const PartPtr& part : parts) shim::release(&part->before);
    shim::Unseen unseen;
    std::unique_lock<std::mutex> held(lock);
    if (is_broken) {
        // The work ends, as a kernel does that NCCL breaks off, and nothing has arrived.
        changed.wait(held, [&] { return own->was_ready || own->is_out; });
        fail(own, REMOTE_ERROR, "the connection was closed by the other side");
        return;
    }
    for (const PartPtr& part : parts) {
        if (own->error == SUCCESS && !is_faulty("silent", own->rank)) part->is_there = true;
    }
    for (const PartPtr& part : parts) {
        if (part->is_there && !part->is_done) advance(*part);
    }
    changed.notify_all();
    changed.wait(held, [&] {
        bool is_done = true;
        for (const PartPtr& part : parts) is_done = is_done && part->is_done;
        return own->is_out || is_done;
    });
    for (const PartPtr& part : parts) shim::acquire(&part->after);
}

// Queues what has its connections, in its order.
static void queue_ready(World& world) {
    for (Communicator* own : world.members) {
        while (own != nullptr && !own->waiting.empty()) {
            Batch& next = own->waiting.front();
            bool is_ready = true;
            for (const PartPtr& part : next.parts) is_ready = is_ready && is_connected(*part);
            if (!is_ready) break;
            bool is_broken = ++own->groups >= 3 && is_faulty("broken", own->rank);
            next.stream->push([=, parts = next.parts] { run(own, parts, is_broken); });
            own->waiting.pop_front();
        }
    }
}

// Ends a group: everything in it is asked for at once.
static int flush() {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    int status = refusal;
    refusal = SUCCESS;
    if (status != SUCCESS) asked.clear();
    if (asked.empty()) return status;
    std::map<std::pair<Communicator*, Stream*>, Batch> batches;
    for (auto& [stream, part] : asked) {
        post(part);
        part->owner->is_fresh = true, part->owner->was_ready = false;
        Batch& batch = batches[{part->owner, stream}];
        batch.stream = stream;
        batch.parts.push_back(part);
    }
    for (auto& [key, batch] : batches) key.first->waiting.push_back(batch);
    for (auto& [key, batch] : batches) queue_ready(*key.first->world);
    asked.clear();
    return IN_PROGRESS;
}

// Whether a rank is ready for the next call.
static int state_of(Communicator* own) {
    if (own->error != SUCCESS) return own->error;
    World& world = *own->world;
    if (world.joined < world.members.size() || !own->waiting.empty()) return IN_PROGRESS;
    bool is_through = world.finishing == world.members.size() && own->open == 0;
    return own->is_finishing && !is_through ? IN_PROGRESS : SUCCESS;
}
