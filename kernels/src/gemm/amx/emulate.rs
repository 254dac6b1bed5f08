//! Runs the AMX instructions of the tests on processors that lack them.
//!
//! A processor meets an unknown instruction with SIGILL. The handler here executes those that
//! [`super::Tiles`] consists of, in software, and lets the thread go on behind them. Semantics:
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, at each instruction.

mod decode;

use std::{
    cell::{Cell, UnsafeCell},
    ffi::{c_int, c_void},
    mem, ptr,
    sync::Once,
};

use half::bf16;

use decode::{Instruction, Rows, decode};

/// Tiles of palette 1, their rows, and the bytes of a row.
const TILES: usize = 8;
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

type Tile = [[u8; ROW_BYTES]; ROWS];

/// The tile registers of a thread.
struct State {
    /// Rows and bytes of a row of each tile; all zero while nothing is configured.
    shapes: [(usize, usize); TILES],
    tiles: [Tile; TILES],
}

/// What stands where nothing is configured.
const RELEASED: State = State { shapes: [(0, 0); TILES], tiles: [[[0; ROW_BYTES]; ROWS]; TILES] };

// Initialised as the thread begins and dropped as plain memory, so that the handler may use it:
// nothing is allocated or registered at the first use.
thread_local! {
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(RELEASED) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
}

/// Makes AMX available to the calling thread, where the machine does not have it.
///
/// The handler serves all threads, but only those that called this say [`is_installed`]: tests
/// that run beside this one and ask for AMX must not get another answer in their middle.
pub(crate) fn install() {
    static HANDLER: Once = Once::new();
    if super::is_real() {
        return;
    }
    HANDLER.call_once(|| {
        // SAFETY: all zero is a `sigaction` without flags and with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `handle` has the signature that SA_SIGINFO asks for and uses only memory that
        // is initialised before the thread runs.
        let result = unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) };
        assert_eq!(result, 0, "no handler for SIGILL");
    });
    INSTALLED.set(true);
}

/// Whether the calling thread has called [`install`], on a machine without AMX.
pub(super) fn is_installed() -> bool {
    INSTALLED.get()
}

/// Executes the instruction that was unknown, or lets the process die of it.
extern "C" fn handle(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the interrupted thread's registers, which nobody else uses.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    let next = decode(registers).and_then(|(instruction, next)| {
        // SAFETY: `STATE` is used in `execute` alone, which causes no SIGILL.
        let done = STATE.with(|state| execute(unsafe { &mut *state.get() }, instruction));
        done.map(|()| next)
    });
    match next {
        Some(next) => registers[libc::REG_RIP as usize] = next as i64,
        // The instruction is met again, and the process ends as if nothing had been installed.
        // SAFETY: `signal` may be called in a handler.
        None => _ = unsafe { libc::signal(signal, libc::SIG_DFL) },
    }
}

/// None where a processor would refuse.
fn execute(state: &mut State, instruction: Instruction) -> Option<()> {
    match instruction {
        Instruction::LoadConfiguration { address } => configure(state, address)?,
        Instruction::Release => *state = RELEASED,
        Instruction::Zero { tile } => {
            shape(state, tile)?;
            state.tiles[tile] = [[0; ROW_BYTES]; ROWS];
        }
        Instruction::Load { tile, rows } => load(state, tile, rows)?,
        Instruction::Store { tile, rows } => store(state, tile, rows)?,
        Instruction::ProductBf16 { sum, left, right } => product(state, sum, left, right)?,
    }
    Some(())
}

/// Rows and bytes of a row of a tile in use.
fn shape(state: &State, tile: usize) -> Option<(usize, usize)> {
    Some(state.shapes[tile]).filter(|&(rows, _)| rows != 0)
}

/// `ldtilecfg`: sets the shapes and clears all tiles.
fn configure(state: &mut State, address: usize) -> Option<()> {
    // SAFETY: the instruction reads these bytes.
    let bytes = unsafe { ptr::with_exposed_provenance::<[u8; 64]>(address).read_unaligned() };
    let (head, row_bytes, rows) = (&bytes[..16], &bytes[16..48], &bytes[48..]);
    let mut reserved = [&head[2..], &row_bytes[2 * TILES..], &rows[TILES..]].into_iter().flatten();
    let (palette, start_row) = (head[0], head[1]);
    if palette != 1 || start_row != 0 || reserved.any(|byte| *byte != 0) {
        return None;
    }
    *state = RELEASED;
    for (tile, shape) in state.shapes.iter_mut().enumerate() {
        let row_bytes = u16::from_le_bytes([row_bytes[2 * tile], row_bytes[2 * tile + 1]]);
        *shape = (usize::from(rows[tile]), usize::from(row_bytes));
        let is_legal = shape.0 <= ROWS && shape.1 <= ROW_BYTES && (shape.0 == 0) == (shape.1 == 0);
        is_legal.then_some(())?;
    }
    Some(())
}

/// `tileloadd`: rows and bytes outside of the shape become zero.
fn load(state: &mut State, tile: usize, from: Rows) -> Option<()> {
    let (rows, row_bytes) = shape(state, tile)?;
    state.tiles[tile] = [[0; ROW_BYTES]; ROWS];
    for (row, to) in state.tiles[tile][..rows].iter_mut().enumerate() {
        let from = ptr::with_exposed_provenance::<u8>(from.address(row));
        // SAFETY: the instruction reads these bytes; a row of a tile has room for them.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), row_bytes) };
    }
    Some(())
}

/// `tilestored`.
fn store(state: &State, tile: usize, to: Rows) -> Option<()> {
    let (rows, row_bytes) = shape(state, tile)?;
    for (row, from) in state.tiles[tile][..rows].iter().enumerate() {
        let to = ptr::with_exposed_provenance_mut::<u8>(to.address(row));
        // SAFETY: the instruction writes these bytes, which a row of a tile has.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, row_bytes) };
    }
    Some(())
}

/// `tdpbf16ps`: adds the products of the pairs of `left`'s row with those of `right`'s columns.
fn product(state: &mut State, sum: usize, left: usize, right: usize) -> Option<()> {
    let shapes = (shape(state, sum)?, shape(state, left)?, shape(state, right)?);
    let ((rows, row_bytes), (left_rows, left_bytes), (pairs, right_bytes)) = shapes;
    let are_distinct = sum != left && left != right && right != sum;
    let fits = left_rows == rows && left_bytes == 4 * pairs && right_bytes == row_bytes;
    if !are_distinct || !fits || row_bytes % 4 != 0 {
        return None;
    }
    for row in 0..rows {
        let added = row_product(&state.tiles[left][row], &state.tiles[right][..pairs]);
        let (sums, _) = state.tiles[sum][row][..row_bytes].as_chunks_mut();
        for (sum, added) in sums.iter_mut().zip(added) {
            *sum = plus(f32::from_le_bytes(*sum), added).to_le_bytes();
        }
    }
    Some(())
}

/// For each column the sum over the pairs: first values and second values are summed apart, with
/// one rounding for a product and its addition, and then added.
fn row_product(left: &[u8; ROW_BYTES], right: &[[u8; ROW_BYTES]]) -> [f32; ROW_BYTES / 4] {
    let value = |row: &[u8; ROW_BYTES], at: usize| {
        flushed(bf16::from_le_bytes([row[2 * at], row[2 * at + 1]]).to_f32())
    };
    let mut sums = [[0.0_f32; 2]; ROW_BYTES / 4];
    for (pair, right) in right.iter().enumerate() {
        for (column, sums) in sums.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                let (left, right) = (value(left, 2 * pair + half), value(right, 2 * column + half));
                *sum = flushed(left.mul_add(right, *sum));
            }
        }
    }
    sums.map(|[first, second]| plus(first, second))
}

fn plus(a: f32, b: f32) -> f32 {
    flushed(flushed(a) + flushed(b))
}

/// Numbers too small for a normal f32 count as zero, on the way in and on the way out.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

#[cfg(test)]
mod tests {
    use std::arch::asm;

    use super::*;
    use crate::gemm::amx::{Configuration, Tiles, WHOLE_TILES};

    type Numbers = [f32; 256];

    /// As many numbers as a tile holds.
    fn numbers() -> Numbers {
        std::array::from_fn(|at| at as f32 + 1.0)
    }

    fn configuration(shapes: [(u8, u16); 3]) -> Configuration {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        for (tile, shape) in shapes.into_iter().enumerate() {
            (rows[tile], row_bytes[tile]) = shape;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }

    /// Checks that a tile that is loaded and stored by addresses of the given form comes through
    /// whole. The memory begins `$displacement` bytes behind the base; the index is 16.
    ///
    /// A macro, since the form is a part of the instruction.
    macro_rules! check_address {
        ($base:tt, $index:tt, $displacement:literal) => {{
            install();
            let _tiles = Tiles::configure();
            let (before, mut after) = (numbers(), [0.0_f32; 256]);
            let from = (&raw const before).wrapping_byte_offset(-$displacement);
            let to = (&raw mut after).wrapping_byte_offset(-$displacement);
            // SAFETY: the tiles are configured, and 16 rows of 64 bytes lie at the addresses.
            unsafe {
                asm!(
                    concat!("tileloadd tmm7, [", $base, " + ", $index, "*4 + ", $displacement, "]"),
                    concat!("mov ", $base, ", rdx"),
                    concat!("tilestored [", $base, " + ", $index, "*4 + ", $displacement, "], tmm7"),
                    inout($base) from => _, in($index) 16_usize, in("rdx") to, out("tmm7") _,
                );
            }
            assert_eq!(before, after);
        }};
    }

    #[test]
    fn addresses_of_every_form_are_understood() {
        check_address!("rax", "rcx", 0);
        check_address!("rdi", "rsi", 64);
        check_address!("r13", "r12", 0);
        check_address!("r12", "r13", 127);
        check_address!("r8", "r9", 4096);
        check_address!("r10", "r11", -64);
        check_address!("r14", "r15", -4096);
        check_address!("rax", "r12", 8);
        check_address!("r12", "rax", 8);
    }

    #[test]
    fn rows_may_lie_backwards_or_in_one_place() {
        install();
        let _tiles = Tiles::configure();
        let (before, mut backwards, mut first) = (numbers(), [0.0_f32; 256], [0.0_f32; 256]);
        // SAFETY: the tiles are configured; the last row of `before` lies at its value 240, and
        // the others below it.
        unsafe {
            asm!(
                "tileloaddt1 tmm0, [{last} + {back}]",
                "tilestored [{backwards} + {on}], tmm0",
                "tileloadd tmm0, [{before}]",
                "tilestored [{first} + {on}], tmm0",
                before = in(reg) &before, last = in(reg) &raw const before[240],
                backwards = in(reg) &mut backwards, first = in(reg) &mut first,
                back = in(reg) -64_isize, on = in(reg) 64_usize, out("tmm0") _,
            );
        }
        for at in 0..256 {
            assert_eq!(backwards[at], before[(15 - at / 16) * 16 + at % 16]);
            assert_eq!(first[at], before[at % 16]);
        }
    }

    #[test]
    fn a_configuration_is_read_from_any_address() {
        install();
        let mut after = [1.0_f32; 256];
        // SAFETY: the configuration is legal, by whichever address it is read; `after` has room.
        unsafe {
            asm!(
                "ldtilecfg [rip + {configuration}]",
                "tilerelease",
                "ldtilecfg [{base} + {index}*2 + 8]",
                "tilestored [{after} + {on}], tmm5",
                "tilerelease",
                configuration = sym WHOLE_TILES,
                base = in(reg) (&raw const WHOLE_TILES).wrapping_byte_sub(40),
                index = in(reg) 16_usize, after = in(reg) &mut after, on = in(reg) 64_usize,
            );
        }
        assert_eq!(after, [0.0; 256], "a configuration clears the tiles");
    }

    #[test]
    fn small_tiles_are_multiplied_and_stored_within_their_shapes() {
        install();
        // 2 rows and 3 columns of sums over 2 pairs. Rows begin 16 bytes apart; no 9 is read.
        let small = configuration([(2, 12), (2, 8), (2, 12)]);
        let halves = |numbers: [u8; 16]| numbers.map(|x| bf16::from_f32(x.into()));
        let left = halves([1, 2, 3, 4, 9, 9, 9, 9, 5, 6, 7, 8, 9, 9, 9, 9]);
        let right = halves([1, 0, 0, 1, 1, 1, 9, 9, 2, 0, 0, 2, 2, 2, 9, 9]);
        let mut sums = [10.0_f32; 8];
        // SAFETY: the configuration is legal, and rows of 8 and 12 bytes lie at the addresses.
        unsafe {
            asm!(
                "ldtilecfg [{small}]",
                "tileloadd tmm0, [{sums} + {sixteen}]",
                "tileloadd tmm1, [{left} + {sixteen}]",
                "tileloadd tmm2, [{right} + {sixteen}]",
                "tdpbf16ps tmm0, tmm1, tmm2",
                "tilestored [{sums} + {sixteen}], tmm0",
                "tilerelease",
                small = in(reg) &small, sums = in(reg) &mut sums, left = in(reg) &left,
                right = in(reg) &right, sixteen = in(reg) 16_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
            );
        }
        // Row 0: 1 + 3 * 2, 2 + 4 * 2, (1 + 2) + (3 + 4) * 2; row 1 likewise from 5 to 8.
        assert_eq!(sums, [17.0, 20.0, 27.0, 10.0, 29.0, 32.0, 51.0, 10.0]);
    }

    #[test]
    fn a_tile_is_cleared_alone() {
        install();
        let _tiles = Tiles::configure();
        let (before, mut cleared, mut kept) = (numbers(), [1.0_f32; 256], [0.0_f32; 256]);
        // SAFETY: the tiles are configured, and 16 rows of 64 bytes lie at the addresses.
        unsafe {
            asm!(
                "tileloadd tmm5, [{before} + {on}]",
                "tileloadd tmm6, [{before} + {on}]",
                "tilezero tmm5",
                "tilestored [{cleared} + {on}], tmm5",
                "tilestored [{kept} + {on}], tmm6",
                before = in(reg) &before, cleared = in(reg) &mut cleared,
                kept = in(reg) &mut kept, on = in(reg) 64_usize, out("tmm5") _, out("tmm6") _,
            );
        }
        assert_eq!(cleared, [0.0; 256]);
        assert_eq!(kept, before);
    }

    #[test]
    fn what_a_processor_refuses_is_refused() {
        let state = |legal: &Configuration| {
            let mut state = RELEASED;
            configure(&mut state, (&raw const *legal).expose_provenance()).map(|()| state)
        };
        let three = [(2, 12), (2, 8), (2, 12)];
        assert!(state(&configuration(three)).is_some());
        assert!(state(&Configuration { palette: 2, ..configuration(three) }).is_none());
        assert!(state(&Configuration { start_row: 1, ..configuration(three) }).is_none());
        assert!(state(&Configuration { reserved: [1; 14], ..configuration(three) }).is_none());
        for shape in [(17, 64), (16, 65), (0, 4), (4, 0)] {
            assert!(state(&configuration([shape; 3])).is_none(), "{shape:?}");
        }
        for (shapes, [sum, left, right], fits) in [
            (three, [0, 1, 2], true),
            (three, [0, 2, 1], false),
            (three, [0, 0, 2], false),
            ([(4, 4); 3], [0, 1, 2], false),
            ([(2, 12), (3, 8), (2, 12)], [0, 1, 2], false),
            ([(2, 12), (2, 8), (2, 16)], [0, 1, 2], false),
            (three, [0, 1, 3], false),
        ] {
            let mut state = state(&configuration(shapes)).unwrap();
            let result = execute(&mut state, Instruction::ProductBf16 { sum, left, right });
            assert_eq!(result.is_some(), fits, "{shapes:?} {sum} {left} {right}");
        }
    }
}
