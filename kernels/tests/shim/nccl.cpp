// An emulation of libnccl.so.2 for tests, for ranks that are threads of one process, or one thread.
//
// Sends and receives between two ranks meet in their order; those of one group and stream are one
// piece of work of the stream, which ends when all of them are done, so a stream stops at a message
// until the other side is there. As in NCCL, the first messages between two ranks are queued once
// both sides have asked; a communicator that was not seen to be ready may not be used; devices of
// ranks differ. What NCCL would not notice is an error here: a send and a receive of other extents
// or formats, memory of no device or of another one, streams of another one.
//
// TROUPE_SHIM_FAULT makes one rank, as `absent=1`, faulty: `absent` never joins, `silent` never
// comes to its messages, `refusing` is refused to send, and of `broken` the third group breaks off
// halfway. TROUPE_SHIM_NCCL is the version.
#include "messages.h"

#define API extern "C" __attribute__((visibility("default")))

// In the emulation of the driver, which has been loaded by then.
extern "C" int troupe_shim_device();
extern "C" bool troupe_shim_is_allocated(uint64_t at, size_t bytes, int device);

struct Id {
    char bytes[128];
};

// The fields that are looked at.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

// Takes a part into the group, if it is lawful.
static int take(Part part, Stream* stream, size_t read, size_t written) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    Communicator* own = part.owner;
    if (own->is_out) return refused(own, INVALID_ARGUMENT, "a call on a rank that has left");
    if (own->error != SUCCESS) return refused(own, own->error, own->text);
    if (own->is_fresh || state_of(own) != SUCCESS || own->is_finishing) {
        return refused(own, INVALID_ARGUMENT, "a call on a communicator that was not ready");
    }
    if (part.peer < 0 || part.peer >= (int)own->world->members.size()) {
        return refused(own, INVALID_ARGUMENT, "no such rank");
    }
    if (part.kind == SCATTER && part.format != 7) return refused(own, INVALID_USAGE, "a format");
    if (stream->device != own->device) {
        return refused(own, INVALID_USAGE, "the stream is of another device");
    }
    size_t size = part.count * bytes_of(part.format);
    bool is_lawful = true;
    for (auto [at, times] : {std::pair{part.from, read}, {(const char*)part.to, written}}) {
        bool is_there = troupe_shim_is_allocated((uint64_t)at, size * times, own->device);
        is_lawful = is_lawful && (times == 0 || is_there);
    }
    if (!is_lawful) return refused(own, INVALID_ARGUMENT, "memory that the device does not have");
    if (part.kind == SEND && is_faulty("refusing", own->rank)) {
        return refused(own, SYSTEM_ERROR, "no buffer space available");
    }
    asked.push_back({stream, std::make_shared<Part>(part)});
    return SUCCESS;
}

// A part alone is a group of its own.
static int add(const Part& part, Stream* stream, size_t read, size_t written) {
    int status = take(part, stream, read, written);
    return depth > 0 ? status : flush();
}

API int ncclSend(const char* from, size_t count, int format, int peer, Communicator* own,
                 Stream* stream) {
    return add({SEND, own, from, nullptr, count, format, peer, nullptr}, stream, 1, 0);
}

API int ncclRecv(char* to, size_t count, int format, int peer, Communicator* own, Stream* stream) {
    return add({RECEIVE, own, nullptr, to, count, format, peer, nullptr}, stream, 0, 1);
}

API int ncclAllGather(const char* from, char* to, size_t count, int format, Communicator* own,
                      Stream* stream) {
    size_t ranks = own->world->members.size();
    return add({GATHER, own, from, to, count, format, 0, nullptr}, stream, 1, ranks);
}

API int ncclReduceScatter(const char* from, char* to, size_t count, int format, int sum,
                          Communicator* own, Stream* stream) {
    size_t ranks = own->world->members.size();
    if (sum != 0) return refused(own, INVALID_ARGUMENT, "only sums");
    return add({SCATTER, own, from, to, count, format, 0, nullptr}, stream, ranks, 1);
}

API int ncclGroupStart() {
    ++depth;
    return SUCCESS;
}

API int ncclGroupEnd() {
    if (depth == 0) return INVALID_USAGE;
    return --depth > 0 ? (int)SUCCESS : flush();
}

API int ncclGetVersion(int* version) {
    const char* text = getenv("TROUPE_SHIM_NCCL");
    *version = text == nullptr ? 23000 : atoi(text);
    return SUCCESS;
}

API int ncclGetUniqueId(Id* id) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    static int ids = 0;
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "emulated %d", ++ids);
    return SUCCESS;
}

API int ncclCommInitRankConfig(Communicator** slot, int ranks, Id id, int rank, Config* config) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    bool is_lawful = config->size >= sizeof(Config) && config->magic == 0xcafebeef;
    bool is_known = std::string(id.bytes).rfind("emulated ", 0) == 0;
    if (!is_lawful || config->blocking != 0 || !is_known || rank < 0 || rank >= ranks ||
        troupe_shim_device() < 0) {
        return INVALID_ARGUMENT;
    }
    World& world = worlds[id.bytes];
    if (world.members.empty()) world.members.resize(ranks);
    if ((int)world.members.size() != ranks) return INVALID_ARGUMENT;
    *slot = new Communicator{&world, rank, troupe_shim_device()};
    if (is_faulty("absent", rank)) return IN_PROGRESS;
    if (world.members[rank] != nullptr) fail(*slot, INVALID_USAGE, "the rank is taken");
    for (Communicator* other : world.members) {
        if (other == nullptr || other->device != (*slot)->device) continue;
        fail(*slot, INVALID_USAGE, "two ranks have the same device");
        fail(other, INVALID_USAGE, "two ranks have the same device");
    }
    world.members[rank] = *slot;
    ++world.joined;
    return IN_PROGRESS;
}

API int ncclCommGetAsyncError(Communicator* own, int* state) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    if (own->is_out) return INVALID_ARGUMENT;
    // At first everything is under way, however quick it is.
    *state = own->is_fresh && own->error == SUCCESS ? (int)IN_PROGRESS : state_of(own);
    own->is_fresh = false, own->was_ready = *state == SUCCESS;
    changed.notify_all();
    return SUCCESS;
}

API int ncclCommFinalize(Communicator* own) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    if (own->is_out || own->is_finishing || state_of(own) != SUCCESS) return INVALID_ARGUMENT;
    own->is_finishing = own->is_fresh = true, own->was_ready = false;
    ++own->world->finishing;
    return IN_PROGRESS;
}

API int ncclCommDestroy(Communicator* own) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    if (own->is_out || !own->is_finishing || state_of(own) != SUCCESS) return INVALID_USAGE;
    own->is_out = true;
    return SUCCESS;
}

API int ncclCommAbort(Communicator* own) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    if (own->is_out) return INVALID_ARGUMENT;
    own->is_out = true;
    changed.notify_all();
    return SUCCESS;
}

API const char* ncclGetLastError(Communicator* own) {
    shim::Unseen unseen;
    std::lock_guard<std::mutex> held(lock);
    return own == nullptr ? "" : own->text.c_str();
}

API const char* ncclGetErrorString(int status) {
    switch (status) {
        case SYSTEM_ERROR: return "unhandled system error";
        case INVALID_ARGUMENT: return "invalid argument";
        case INVALID_USAGE: return "invalid usage";
        case REMOTE_ERROR: return "remote process exited or there was a network error";
        default: return "internal error";
    }
}
