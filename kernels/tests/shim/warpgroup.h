// Products of warpgroups on a CPU, as Hopper has them: begun by all threads of a warpgroup, done
// when they are waited for.
//
// Part of shim.h. Registers that a product uses may not have changed since `open_products`, nor
// change before the wait. A product takes its factors out of shared memory at once, as the first
// of its threads sees them, and again at the wait: if they are not the same, somebody wrote to them
// in between. Its sums are NaN from its beginning to the wait. What has been written to factors
// since the thread's last `show_to_products` is refused.
#pragma once

namespace shim {

// A product under way, with what its first thread saw: a [64, 16] and b [16, width].
struct Product {
    uint64_t a_at, b_at;
    uint32_t width, done;
    bool a_across, b_across, a_in_registers;
    float a[64 * 16], b[16 * 256];
};

UNWATCHED uint8_t* shared_bytes() {
    return self().all->shared;
}

inline uint32_t shared_address(const void* at) {
    return (uint32_t)((const uint8_t*)at - shared_bytes());
}

// PTX ISA, "Matrix Descriptor" and "Shared Memory Matrix Layout": where number k of the depth lies
// of row or column i, in bytes.
UNWATCHED uint32_t place_of(uint64_t factor, bool is_across, uint32_t i, uint32_t k) {
    if (factor >> 62 != 1 || (factor >> 49 & 7) != 0) fail("a factor that is swizzled otherwise");
    uint32_t start = (uint32_t)(factor & 0x3FFF) * 16;
    uint32_t leading = (uint32_t)(factor >> 16 & 0x3FFF) * 16;
    uint32_t stride = (uint32_t)(factor >> 32 & 0x3FFF) * 16;
    uint32_t at = is_across ? start + i / 64 * leading + k / 8 * stride + k % 8 * 128 + i % 64 * 2
                            : start + i / 8 * stride + i % 8 * 128 + k * 2;
    return at ^ (at >> 7 & 7) << 4;
}

// Not inlined, so that ThreadSanitizer sees the read.
static __attribute__((noinline)) uint16_t looked_at(const uint8_t* at) {
    return *(const uint16_t*)at;
}

UNWATCHED uint16_t peeked_at(const uint8_t* at) {
    return *(const uint16_t*)at;
}

UNWATCHED float number_of(uint16_t bits) {
    return __uint_as_float((uint32_t)bits << 16);
}

// Refuses what its writer has not shown to products since.
UNWATCHED void refuse_unshown(uint32_t at) {
    const Block& all = *self().all;
    if (at + 2 > all.shared_bytes) fail("a factor ends behind shared memory");
    const Written& written = all.written[at / 16];
    if (written.by == 0) return;
    if (fibers.all[written.by - 1].shows <= written.shows) {
        fail("a product reads what was written to shared memory and not shown to it");
    }
}

// Takes a factor of `extent` rows or columns, to be read at [i + k apart] or [i apart + k].
UNWATCHED void take_factor(uint64_t at, bool is_across, uint32_t extent, float* to, uint32_t per_i,
                           uint32_t per_k) {
    for (uint32_t i = 0; i < extent; ++i) {
        for (uint32_t k = 0; k < 16; ++k) {
            uint32_t place = place_of(at, is_across, i, k);
            refuse_unshown(place);
            to[i * per_i + k * per_k] = number_of(looked_at(shared_bytes() + place));
        }
    }
}

UNWATCHED void refuse_change(uint64_t at, bool is_across, uint32_t extent, const float* from,
                             uint32_t per_i, uint32_t per_k) {
    for (uint32_t i = 0; i < extent; ++i) {
        for (uint32_t k = 0; k < 16; ++k) {
            const uint8_t* place = shared_bytes() + place_of(at, is_across, i, k);
            uint32_t now = __float_as_uint(number_of(peeked_at(place)));
            if (now != __float_as_uint(from[i * per_i + k * per_k])) {
                fail("shared memory was written while a product read it");
            }
        }
    }
}

UNWATCHED Warpgroup& warpgroup() {
    Self& own = self();
    if (own.threads < (own.index / 128 + 1) * 128) fail("a product without all of its warpgroup");
    return own.all->warpgroups[own.index / 128];
}

// The product that this thread begins now; its first thread makes it.
UNWATCHED Product& begun(uint64_t a, bool a_across, bool in_registers, uint64_t b, bool b_across,
                         uint32_t width) {
    Warpgroup& group = warpgroup();
    Product*& product = group.products[self().products_begun % PRODUCTS];
    if (self().products_begun == group.begun) {
        if (product != nullptr) fail("too many products under way");
        ++group.begun;
        product = (Product*)malloc(sizeof(Product));
        product->a_at = a, product->b_at = b, product->width = width, product->done = 0;
        product->a_across = a_across, product->b_across = b_across;
        product->a_in_registers = in_registers;
        if (!in_registers) take_factor(a, a_across, 64, product->a, 16, 1);
        take_factor(b, b_across, width, product->b, 1, width);
    }
    bool is_same = product->a_at == a && product->b_at == b && product->width == width;
    if (!is_same) fail("threads of a warpgroup begin different products");
    return *product;
}

// Refuses registers that have changed since they were opened, if they have been used before.
UNWATCHED void use_registers(const void* at, uint32_t bytes) {
    Self& own = self();
    if (!own.is_open) fail("a product without `open_products`");
    for (Used& used : own.used) {
        if (used.at != at || used.bytes != bytes) continue;
        if (memcmp(used.content, at, bytes) != 0) fail("registers changed after `open_products`");
        return;
    }
    own.used.push_back({at, bytes, {}});
    memcpy(own.used.back().content, at, bytes);
}

// Remembers which sums the product is added to, and makes them unknown until the wait.
UNWATCHED void hold_sums(float* sums, uint32_t count, bool is_added, const uint32_t* rows) {
    Self& own = self();
    if (!own.is_open) fail("a product without `open_products`");
    Pending& pending = own.pending[own.products_begun % PRODUCTS];
    pending.sums = sums, pending.rows = rows, pending.group = own.product_groups;
    if (rows != nullptr) memcpy(pending.words, rows, sizeof(pending.words));
    Held* held = own.held;
    while (held < own.held + SUMS && held->sums != nullptr && held->sums != sums) ++held;
    if (held == own.held + SUMS) fail("too many sums under way");
    if (held->sums != nullptr && !is_added) fail("sums begin anew under a product");
    if (held->sums == nullptr) {
        if (is_added) use_registers(sums, 4 * count);
        held->sums = sums, held->count = count, held->products = 0;
        for (uint32_t i = 0; i < count; ++i) {
            held->values[i] = is_added ? sums[i] : 0.0f;
            sums[i] = __uint_as_float(0xFFFFFFFFu);
        }
    }
    ++held->products;
    ++own.products_begun;
}

template <uint32_t N>
UNWATCHED void multiply_factors(float (&sums)[N][4], uint64_t a, bool a_across, uint64_t b,
                                bool b_across, bool is_added) {
    begun(a, a_across, false, b, b_across, 8 * N);
    hold_sums(&sums[0][0], 4 * N, is_added, nullptr);
}

template <uint32_t N>
UNWATCHED void multiply_rows_by(float (&sums)[N][4], const uint32_t (&a)[4], uint64_t b,
                                bool b_across) {
    use_registers(a, sizeof(a));
    Product& product = begun(0, false, true, b, b_across, 8 * N);
    uint32_t top = self().index % 128 / WARP * 16 + lane() / 4, left = lane() % 4 * 2;
    for (uint32_t i = 0; i < 8; ++i) {
        uint32_t row = top + i / 2 % 2 * 8, k = left + i / 4 * 8 + i % 2;
        product.a[row * 16 + k] = number_of((uint16_t)(a[i / 2] >> i % 2 * 16));
    }
    hold_sums(&sums[0][0], 4 * N, true, a);
}

// Adds this thread's part of a product to what is held of its sums; exact, and rounded once.
UNWATCHED void add_product(const Product& product, float* values) {
    uint32_t top = self().index % 128 / WARP * 16 + lane() / 4, left = lane() % 4 * 2;
    for (uint32_t i = 0; i < product.width / 2; ++i) {
        uint32_t row = top + i / 2 % 2 * 8, column = i / 4 * 8 + left + i % 2;
        double sum = values[i];
        for (uint32_t k = 0; k < 16; ++k) {
            sum += (double)product.a[row * 16 + k] * (double)product.b[k * product.width + column];
        }
        values[i] = (float)sum;
    }
}

// Gives sums back whose products are all done.
UNWATCHED void give_back(Held& held) {
    for (uint32_t i = 0; i < held.count; ++i) {
        if (__float_as_uint(held.sums[i]) != 0xFFFFFFFFu) fail("sums changed under a product");
        held.sums[i] = held.values[i];
    }
    held.sums = nullptr;
    // No gap stays between those that are held.
    Held* last = self().held + SUMS;
    while ((--last)->sums == nullptr && last > &held) {
    }
    if (last > &held) {
        memcpy((void*)&held, last, sizeof(Held));
        last->sums = nullptr;
    }
}

UNWATCHED void finish_product(Warpgroup& group, uint32_t at) {
    Product*& product = group.products[at];
    Self& own = self();
    if (product->done == 0) {
        if (!product->a_in_registers) {
            refuse_change(product->a_at, product->a_across, 64, product->a, 16, 1);
        }
        refuse_change(product->b_at, product->b_across, product->width, product->b, 1,
                      product->width);
    }
    const Pending& pending = own.pending[at];
    if (pending.rows != nullptr && memcmp(pending.rows, pending.words, 16) != 0) {
        fail("a factor in registers changed under a product");
    }
    Held* held = own.held;
    while (held->sums != pending.sums) ++held;
    add_product(*product, held->values);
    if (--held->products == 0) give_back(*held);
    if (++product->done == 128) {
        free(product);
        product = nullptr;
    }
}

UNWATCHED void wait_for_products(uint32_t latest) {
    Warpgroup& group = warpgroup();
    Self& own = self();
    group.barrier.wait(true);
    while (own.products_done < own.products_begun) {
        uint32_t at = own.products_done % PRODUCTS;
        if (own.product_groups <= own.pending[at].group + latest) break;
        finish_product(group, at);
        ++own.products_done;
    }
    own.is_open = false;
    group.barrier.wait(true);
}

UNWATCHED void end_group_of_products() {
    ++self().product_groups;
}

UNWATCHED void open_products() {
    warpgroup();
    Self& own = self();
    own.is_open = true;
    for (Used& used : own.used) memcpy(used.content, used.at, used.bytes);
}

UNWATCHED void show_to_products() {
    ++self().shows;
}

// Notes that this thread has written the 16 bytes around a place in shared memory.
UNWATCHED void written_to_factor(const void* at) {
    Self& own = self();
    uint32_t place = shared_address(at);
    if (place < own.all->shared_bytes) own.all->written[place / 16] = {own.index + 1, own.shows};
}

}  // namespace shim
