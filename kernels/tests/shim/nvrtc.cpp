// An emulation of libnvrtc.so for tests: it compiles a source with g++ under the shim.
//
// SHIM_FOLDER, a constant of its own compilation, says where shim.h is; SHIM_FLAGS are given to
// g++ beside the options that start with -D. The "CUBIN" is "TRPSHIM", its length, and a library.
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

struct Program {
    std::string source, name, log, binary;
};

static std::string content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
}

// A sanitizer that this process was started with is none of the compiler's business.
__attribute__((constructor)) static void start_children_plain() {
    unsetenv("LD_PRELOAD");
}

API int nvrtcVersion(int* major, int* minor) {
    *major = 0, *minor = 1;
    return 0;
}

API int nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers,
                           const char* const*, const char* const*) {
    *program = new Program{source, name, "", ""};
    return headers == 0 ? 0 : 3;
}

API int nvrtcDestroyProgram(Program** program) {
    delete *program;
    return 0;
}

API int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    char folder[] = "/tmp/troupe-nvrtc-XXXXXX";
    if (mkdtemp(folder) == nullptr) return 11;
    std::string base = std::string(folder) + "/kernel";
    std::ofstream(base + ".cpp") << "#include \"" SHIM_FOLDER "/shim.h\"\n" << program->source;
    std::string command =
        "g++ -std=c++17 -O1 -g1 -fPIC -shared -ffp-contract=off -Wall -Wextra -Werror "
        "-Wno-unknown-pragmas -Wno-unused-function -Wno-unused-const-variable " SHIM_FLAGS;
    for (int i = 0; i < count; ++i) {
        if (std::string(options[i]).rfind("-D", 0) == 0) command += " " + std::string(options[i]);
    }
    command += " " + base + ".cpp -o " + base + ".so > " + base + ".log 2>&1";
    bool is_compiled = system(command.c_str()) == 0;
    program->log = content_of(base + ".log");
    if (is_compiled) {
        std::string library = content_of(base + ".so");
        uint64_t length = library.size();
        program->binary = std::string("TRPSHIM", 8);
        program->binary.append((const char*)&length, 8);
        program->binary += library;
    }
    for (const char* ending : {".cpp", ".so", ".log"}) unlink((base + ending).c_str());
    rmdir(folder);
    return is_compiled ? 0 : 6;
}

API int nvrtcGetProgramLogSize(Program* program, size_t* size) {
    *size = program->log.size() + 1;
    return 0;
}

API int nvrtcGetProgramLog(Program* program, char* log) {
    program->log.copy(log, program->log.size());
    log[program->log.size()] = 0;
    return 0;
}

API int nvrtcGetCUBINSize(Program* program, size_t* size) {
    *size = program->binary.size();
    return 0;
}

API int nvrtcGetCUBIN(Program* program, char* binary) {
    program->binary.copy(binary, program->binary.size());
    return 0;
}
