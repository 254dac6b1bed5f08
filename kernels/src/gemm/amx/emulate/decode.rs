//! Reads AMX instructions: their bytes, and the registers that their addresses are made of.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2.

use std::ptr;

use super::TILES;

/// Where the rows of a tile lie in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    first: usize,
    stride: usize,
}

impl Rows {
    /// The address of a row.
    pub(super) fn address(self, row: usize) -> usize {
        self.first.wrapping_add(row.wrapping_mul(self.stride))
    }
}

/// Tiles are named by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    /// `ldtilecfg`.
    LoadConfiguration { address: usize },
    /// `tilerelease`.
    Release,
    /// `tilezero`.
    Zero { tile: usize },
    /// `tileloadd`, and `tileloaddt1`, which adds a hint that the values are not needed again.
    Load { tile: usize, rows: Rows },
    /// `tilestored`.
    Store { tile: usize, rows: Rows },
    /// `tdpbf16ps`.
    ProductBf16 { sum: usize, left: usize, right: usize },
}

/// The interrupted thread's registers, as `libc` orders them.
pub(super) type Registers = [libc::greg_t; 23];

/// A general register by the number it has in instructions.
fn register(registers: &Registers, number: u8) -> usize {
    use libc::*;
    let places = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
        REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    registers[places[usize::from(number)] as usize] as usize
}

/// Reads the bytes of an instruction, never more than it has.
struct Code {
    at: usize,
}

impl Code {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        // SAFETY: the processor has read these bytes as part of an instruction.
        let bytes = unsafe { ptr::with_exposed_provenance::<[u8; N]>(self.at).read_unaligned() };
        self.at += N;
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }
}

/// What a VEX prefix says in place of the prefixes 66, F3 and F2.
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

/// The three-byte VEX prefix with the opcode, for VEX.128.0F38.W0, and the byte ModRM.
struct Head {
    /// 8 where the prefix extends the number of the index register.
    index: u8,
    /// 8 where it extends the number of the base register.
    base: u8,
    /// The third operand.
    operand: u8,
    /// What stands for one of the older prefixes.
    prefix: u8,
    opcode: u8,
    modrm: u8,
}

impl Head {
    fn read(code: &mut Code) -> Option<Self> {
        if code.byte() != 0xC4 {
            return None;
        }
        // Operands and extensions stand inverted.
        let [map, operand, opcode, modrm] = code.bytes();
        let is_0f38 = map & 0x1F == 2;
        let (is_wide, is_256, is_extended) = (operand >> 7 == 1, operand & 4 != 0, map >> 7 == 0);
        (is_0f38 && !is_wide && !is_256 && !is_extended).then_some(Head {
            index: (!map >> 6 & 1) * 8,
            base: (!map >> 5 & 1) * 8,
            operand: !operand >> 3 & 15,
            prefix: operand & 3,
            opcode,
            modrm,
        })
    }

    fn is_memory(&self) -> bool {
        self.modrm >> 6 != 3
    }

    /// The address that ModRM, SIB and displacement name: a base and one index times its scale.
    ///
    /// None for a base that is absent: 32 bits are no address that a pointer would have.
    fn rows(&self, code: &mut Code, registers: &Registers) -> Option<Rows> {
        let (mut base, mut stride) = (self.modrm & 7, 0);
        let has_sib = base == 4;
        if has_sib {
            let sib = code.byte();
            let index = sib >> 3 & 7 | self.index;
            // The number of rsp stands for no index, which counts as zero.
            stride = if index == 4 { 0 } else { register(registers, index) << (sib >> 6) };
            base = sib & 7;
        }
        let is_relative = self.modrm >> 6 == 0 && base == 5;
        if is_relative && has_sib {
            return None;
        }
        let displacement = match self.modrm >> 6 {
            0 if !is_relative => 0,
            1 => i8::from_le_bytes(code.bytes()) as isize,
            _ => i32::from_le_bytes(code.bytes()) as isize,
        };
        let base = if is_relative { code.at } else { register(registers, base | self.base) };
        Some(Rows { first: base.wrapping_add_signed(displacement), stride })
    }
}

/// The instruction at the instruction pointer, and the address behind it.
pub(super) fn decode(registers: &Registers) -> Option<(Instruction, usize)> {
    let mut code = Code { at: registers[libc::REG_RIP as usize] as usize };
    let head = Head::read(&mut code)?;
    let tile = usize::from(head.modrm >> 3 & 7);
    let (low, right) = (usize::from(head.modrm & 7), usize::from(head.operand));
    let has_sib = low == 4;
    let instruction = match (head.opcode, head.prefix, head.is_memory()) {
        (0x5C, PF3, false) if right < TILES => {
            Instruction::ProductBf16 { sum: tile, left: low, right }
        }
        _ if right != 0 => return None,
        (0x49, NONE, true) if tile == 0 => {
            let rows = head.rows(&mut code, registers)?;
            Instruction::LoadConfiguration { address: rows.address(1) }
        }
        (0x49, NONE, false) if head.modrm == 0xC0 => Instruction::Release,
        (0x49, PF2, false) if low == 0 => Instruction::Zero { tile },
        (0x4B, P66 | PF2, true) if has_sib => {
            Instruction::Load { tile, rows: head.rows(&mut code, registers)? }
        }
        (0x4B, PF3, true) if has_sib => {
            Instruction::Store { tile, rows: head.rows(&mut code, registers)? }
        }
        _ => return None,
    };
    Some((instruction, code.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_instructions_are_not_mistaken() {
        let mut registers: Registers = [0; 23];
        let mut knows = |code: &[u8]| {
            registers[libc::REG_RIP as usize] = code.as_ptr().expose_provenance() as i64;
            decode(&registers).map(|(_, next)| next - code.as_ptr().addr())
        };
        assert_eq!(knows(&[0xC4, 0xE2, 0x78, 0x49, 0xC0]), Some(5), "tilerelease");
        assert_eq!(knows(&[0xC4, 0xE2, 0x6A, 0x5C, 0xC1]), Some(5), "tdpbf16ps tmm0, tmm1, tmm2");
        assert_eq!(knows(&[0x0F, 0x0B]), None, "ud2");
        assert_eq!(knows(&[0xC4, 0xE2, 0x79, 0x49, 0x00]), None, "sttilecfg [rax]");
        assert_eq!(knows(&[0xC4, 0xE2, 0x6B, 0x5C, 0xC1]), None, "tdpfp16ps tmm0, tmm1, tmm2");
        assert_eq!(knows(&[0xC4, 0xE2, 0x6A, 0x5E, 0xC1]), None, "tdpbsud tmm0, tmm1, tmm2");
        assert_eq!(knows(&[0xC4, 0xE2, 0x2A, 0x5C, 0xC1]), None, "a tenth tile");
        assert_eq!(knows(&[0xC4, 0xE2, 0x7B, 0x4B, 0x00]), None, "rows without an index byte");
        assert_eq!(knows(&[0xC4, 0xE2, 0x7C, 0x49, 0xC0]), None, "256 bits");
        assert_eq!(knows(&[0xC4, 0xE2, 0xF8, 0x49, 0xC0]), None, "wide");
        assert_eq!(knows(&[0xC4, 0xE1, 0x78, 0x49, 0xC0]), None, "another map");
    }
}
