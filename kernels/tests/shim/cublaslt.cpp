// An emulation of libcublasLt.so for tests: D = alpha op(A) op(B) + beta C, column-major, of F32
// and BF16, summed in F64. The work is queued on the stream of the emulation of the driver.
#include <stdint.h>
#include <string.h>

#include <functional>
#include <thread>

// Descriptors are the host's; how its threads hand them on, ThreadSanitizer does not see.
#define UNSEEN __attribute__((no_sanitize("thread")))
#define API extern "C" __attribute__((visibility("default"))) UNSEEN

enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t apart;
};

struct Operation {
    int compute, scale, turn_a, turn_b;
};

struct Preference {
    uint64_t workspace;
    uint32_t alignment[4];
};

struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// In the emulation of the driver, which has been loaded by then.
struct Stream;
extern "C" int troupe_shim_push(Stream* stream, std::function<void()>* work);

static const uint64_t MARK = 0x74726F757065;

API int cublasLtCreate(void** handle) {
    *handle = new int(0);
    return 0;
}

API int cublasLtDestroy(void* handle) {
    delete (int*)handle;
    return 0;
}

API size_t cublasLtGetVersion() {
    return 1;
}

API int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t cols,
                                   int64_t apart) {
    if ((type != R_32F && type != R_16BF) || apart < (int64_t)rows) return INVALID_VALUE;
    *layout = new Layout{type, rows, cols, apart};
    return 0;
}

API int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return 0;
}

API int cublasLtMatmulDescCreate(Operation** operation, int compute, int scale) {
    if (compute != COMPUTE_32F || scale != R_32F) return NOT_SUPPORTED;
    *operation = new Operation{compute, scale, 0, 0};
    return 0;
}

API int cublasLtMatmulDescSetAttribute(Operation* operation, int which, const void* value,
                                       size_t bytes) {
    if (bytes != 4 || (which != 3 && which != 4)) return INVALID_VALUE;
    memcpy(which == 3 ? &operation->turn_a : &operation->turn_b, value, 4);
    return 0;
}

API int cublasLtMatmulDescDestroy(Operation* operation) {
    delete operation;
    return 0;
}

API int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference{0, {256, 256, 256, 256}};
    return 0;
}

API int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int which, const void* value,
                                             size_t bytes) {
    if (which == 1 && bytes == 8) {
        memcpy(&preference->workspace, value, 8);
    } else if (which >= 5 && which <= 8 && bytes == 4) {
        memcpy(&preference->alignment[which - 5], value, 4);
    } else {
        return INVALID_VALUE;
    }
    return 0;
}

API int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return 0;
}

// Whether the extents fit each other.
UNSEEN static bool is_lawful(const Operation* op, const Layout* a, const Layout* b,
                             const Layout* d) {
    uint64_t m = op->turn_a ? a->cols : a->rows, k = op->turn_a ? a->rows : a->cols;
    uint64_t n = op->turn_b ? b->rows : b->cols, other = op->turn_b ? b->cols : b->rows;
    bool is_whole = m > 0 && n > 0 && k > 0;
    return is_whole && k == other && d->rows == m && d->cols == n && a->type == b->type;
}

API int cublasLtMatmulAlgoGetHeuristic(void*, Operation* op, Layout* a, Layout* b, Layout* c,
                                       Layout* d, Preference* preference, int, Heuristic* result,
                                       int* count) {
    *count = 0;
    if (!is_lawful(op, a, b, d) || c->type != d->type) return INVALID_VALUE;
    *result = Heuristic{};
    result->algorithm[0] = MARK;
    for (int i = 0; i < 4; ++i) result->algorithm[1 + i] = preference->alignment[i];
    *count = 1;
    return 0;
}

static double value_at(const Layout& layout, const void* values, uint64_t row, uint64_t col) {
    uint64_t at = row + col * (uint64_t)layout.apart;
    if (layout.type == R_32F) return ((const float*)values)[at];
    uint32_t bits = (uint32_t)((const uint16_t*)values)[at] << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

static void put(const Layout& layout, void* values, uint64_t row, uint64_t col, double value) {
    uint64_t at = row + col * (uint64_t)layout.apart;
    float wide = (float)value;
    if (layout.type == R_32F) {
        ((float*)values)[at] = wide;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &wide, 4);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    ((uint16_t*)values)[at] = (uint16_t)(wide != wide ? 0x7FFF : rounded);
}

API int cublasLtMatmul(void*, Operation* op, const float* alpha, const void* a, Layout* a_layout,
                       const void* b, Layout* b_layout, const float* beta, const void* c,
                       Layout* c_layout, void* d, Layout* d_layout, const Heuristic* algorithm,
                       void*, size_t, Stream* stream) {
    if (!is_lawful(op, a_layout, b_layout, d_layout)) return INVALID_VALUE;
    const void* at[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) {
        bool is_aligned = (uint64_t)at[i] % algorithm->algorithm[1 + i] == 0;
        if (algorithm->algorithm[0] != MARK || !is_aligned) return INVALID_VALUE;
    }
    Operation how = *op;
    Layout left = *a_layout, right = *b_layout, before = *c_layout, out = *d_layout;
    float by = *alpha, keep = *beta;
    std::function<void()> work = [=] {
        uint64_t depth = how.turn_a ? left.rows : left.cols;
        for (uint64_t col = 0; col < out.cols; ++col) {
            for (uint64_t row = 0; row < out.rows; ++row) {
                double sum = 0;
                for (uint64_t k = 0; k < depth; ++k) {
                    sum += (how.turn_a ? value_at(left, a, k, row) : value_at(left, a, row, k)) *
                           (how.turn_b ? value_at(right, b, col, k) : value_at(right, b, k, col));
                }
                double old = keep == 0 ? 0 : keep * value_at(before, c, row, col);
                put(out, d, row, col, by * sum + old);
            }
        }
    };
    return troupe_shim_push(stream, &work);
}
