//! Programs of a few instructions, put together by hand: each asks the kernel one question. See
//! `include/uapi/linux/bpf.h` and the kernel's Documentation/bpf/standardization for the encoding.

use zerocopy::{Immutable, IntoBytes};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The first argument and, at the start, the context.
pub(crate) const R1: u8 = 1;
/// The second argument.
pub(crate) const R2: u8 = 2;
/// The third argument.
pub(crate) const R3: u8 = 3;
/// The first register that outlives calls.
pub(crate) const R6: u8 = 6;
/// The second one.
pub(crate) const R7: u8 = 7;
/// The result.
pub(crate) const R0: u8 = 0;
/// The end of the stack, read-only.
pub(crate) const STACK: u8 = 10;

/// `to = value`.
pub(crate) const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

/// `to = from`.
pub(crate) const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to += value`.
pub(crate) const fn add(to: u8, value: i32) -> Instruction {
    instruction(0x07, to, 0, 0, value)
}

/// `*(u32 *)(base + offset) = value`.
pub(crate) const fn store(base: u8, offset: i16, value: i32) -> Instruction {
    instruction(0x62, base, 0, offset, value)
}

/// `to = map`, by its descriptor (`BPF_PSEUDO_MAP_FD`); one instruction of twice the length.
pub(crate) const fn load_map(to: u8, descriptor: i32) -> [Instruction; 2] {
    [instruction(0x18, to, 1, 0, descriptor), instruction(0, 0, 0, 0, 0)]
}

/// Goes on `skip` instructions further down where `register` is zero.
pub(crate) const fn if_zero(register: u8, skip: i16) -> Instruction {
    instruction(0x15, register, 0, skip, 0)
}

/// Calls a helper.
pub(crate) const fn call(helper: u32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper.cast_signed())
}

/// Ends the program.
pub(crate) const fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        assert_eq!(set(R0, 1).as_bytes(), [0xb7, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(copy(R7, R0).as_bytes(), [0xbf, 0x07, 0, 0, 0, 0, 0, 0]);
        assert_eq!(add(R2, -4).as_bytes(), [0x07, 2, 0, 0, 0xfc, 0xff, 0xff, 0xff]);
        assert_eq!(store(STACK, -4, 0).as_bytes(), [0x62, 0x0a, 0xfc, 0xff, 0, 0, 0, 0]);
        assert_eq!(load_map(R1, 5)[0].as_bytes(), [0x18, 0x11, 0, 0, 5, 0, 0, 0]);
        assert_eq!(if_zero(R0, 7).as_bytes(), [0x15, 0, 7, 0, 0, 0, 0, 0]);
        assert_eq!(call(122).as_bytes(), [0x85, 0, 0, 0, 122, 0, 0, 0]);
        assert_eq!(exit().as_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
