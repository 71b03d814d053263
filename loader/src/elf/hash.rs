//! The two hash functions of ELF symbol names.

/// The GNU hash (`DT_GNU_HASH`): h = h * 33 + c, from 5381.
pub fn gnu(name: &[u8]) -> u32 {
    name.iter().fold(GNU_START, |h, &c| gnu_step(h, c))
}

/// The GNU hash of the empty name.
pub const GNU_START: u32 = 5381;

/// The GNU hash of a name that is one byte longer.
#[inline]
pub const fn gnu_step(hash: u32, byte: u8) -> u32 {
    hash.wrapping_mul(33).wrapping_add(byte as u32)
}

/// The System V hash (`DT_HASH`, `vna_hash`, `vd_hash`; gABI "Hash Table").
pub fn sysv(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |h, &c| {
        let h = (h << 4).wrapping_add(u32::from(c));
        let g = h & 0xf000_0000;
        (h ^ (g >> 24)) & !g
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(gnu(b""), 5381);
        assert_eq!(gnu(b"printf"), 0x156b_2bb8);
        assert_eq!(sysv(b"printf"), 0x0779_05a6);
        assert_eq!(sysv(b"GLIBC_2.2.5"), 0x0969_1a75);
        assert_eq!(sysv(b"LINUX_2.6"), 61_765_110);
    }
}
