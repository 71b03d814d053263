//! Files in which bytes are changed by chance, the same ones in every run.
//!
//! Such a file may say anything, so that there is no telling what a program made of it does. But the loader itself must neither
//! fault nor hang: whatever instruction faults, it is not one of the loader's.

use super::image::Image;
use object::elf::{PT_DYNAMIC, PT_LOAD};
use object::LittleEndian as Le;

/// Numbers as if by chance (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The series that belongs to `seed`.
    pub fn new(seed: u64) -> Chance {
        let mut chance = Chance(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        chance.draw();
        chance
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        ((self.draw() >> 33) as usize) % count
    }
}

/// What numbers in files are compared with: where comparisons go wrong.
const SPECIAL: [u64; 12] =
    [0, 1, 7, 0xff, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 47, u64::MAX >> 1, u64::MAX];

/// Changes one to four places of what a loader reads: headers, dynamic section, symbols, versions, hash table, relocations.
pub fn spoil(image: &mut Image, seed: u64) {
    let mut chance = Chance::new(seed);
    let headers = 0..64 + 56 * image.segments().len();
    let tables = {
        let first = image.loads().remove(0);
        assert_eq!(first.p_type.get(Le), PT_LOAD);
        headers.end..first.p_filesz.get(Le) as usize
    };
    let dynamic = {
        let segment = image.segment(PT_DYNAMIC);
        let start = segment.p_offset.get(Le) as usize;
        start..start + segment.p_filesz.get(Le) as usize
    };
    for _ in 0..1 + chance.below(4) {
        let range = match chance.below(5) {
            0 => headers.clone(),
            1 | 2 => dynamic.clone(),
            _ => tables.clone(),
        };
        let size = [1, 2, 4, 8][chance.below(4)];
        let offset = range.start + chance.below(range.len() / size) * size;
        let old = &image.bytes()[offset..offset + size];
        let old = old.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let new = match chance.below(4) {
            0 => SPECIAL[chance.below(SPECIAL.len())],
            1 => old ^ 1 << chance.below(8 * size),
            2 => old.wrapping_add(SPECIAL[chance.below(6)]).wrapping_sub(SPECIAL[chance.below(6)]),
            _ => chance.draw(),
        };
        image.put(offset, &new.to_le_bytes()[..size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_file() {
        let sound = Image::new(std::fs::read("/proc/self/exe").expect("readable"));
        let spoiled = |seed| {
            let mut image = sound.clone();
            spoil(&mut image, seed);
            image.bytes().to_vec()
        };
        assert!(spoiled(3) == spoiled(3));
        assert!(spoiled(3) != spoiled(4));
    }
}
