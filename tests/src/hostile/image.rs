//! An ELF file whose bytes can be changed by the names that the ABI gives to them.

use object::elf::{Dyn64, DynamicTag, FileHeader64, ProgramHeader64, ProgramType, Rela64, Sym64, PT_DYNAMIC, PT_LOAD};
use object::elf::{DT_SYMTAB, PT_GNU_STACK};
use object::pod::{self, Pod};
use object::LittleEndian as Le;
use std::mem::size_of;

/// A file header.
pub type Header = FileHeader64<Le>;
/// A program header.
pub type Segment = ProgramHeader64<Le>;
/// An entry of the dynamic section.
pub type Entry = Dyn64<Le>;
/// A relocation with addend.
pub type Relocation = Rela64<Le>;
/// A symbol.
pub type Symbol = Sym64<Le>;

/// The file. What is asked for must be there: every method panics when it is not, for then the generator that asked is wrong.
#[derive(Debug, Clone)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// The file with this content.
    pub fn new(bytes: Vec<u8>) -> Image {
        Image { bytes }
    }

    /// Its content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Cuts it off after `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        assert!(length < self.bytes.len());
        self.bytes.truncate(length);
    }

    /// Writes `bytes` at a file offset.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Appends `bytes` at an offset that is a multiple of 16, and returns it.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        offset
    }

    /// The structure at a file offset.
    pub fn at<T: Pod>(&mut self, offset: usize) -> &mut T {
        pod::from_bytes_mut(&mut self.bytes[offset..]).expect("inside the file").0
    }

    /// The file header.
    pub fn header(&mut self) -> &mut Header {
        self.at(0)
    }

    /// All program headers.
    pub fn segments(&mut self) -> &mut [Segment] {
        let header = self.header();
        let (offset, count) = (header.e_phoff.get(Le) as usize, usize::from(header.e_phnum.get(Le)));
        pod::slice_from_bytes_mut(&mut self.bytes[offset..], count).expect("inside the file").0
    }

    /// The first program header of a type.
    pub fn segment(&mut self, kind: ProgramType) -> &mut Segment {
        self.segments().iter_mut().find(|s| s.p_type.get(Le) == kind).expect("a segment of this type")
    }

    /// The PT_LOADs.
    pub fn loads(&mut self) -> Vec<&mut Segment> {
        self.segments().iter_mut().filter(|s| s.p_type.get(Le) == PT_LOAD).collect()
    }

    /// The first PT_LOAD.
    pub fn first_load(&mut self) -> &mut Segment {
        self.loads().remove(0)
    }

    /// The last PT_LOAD: data and bss.
    pub fn last_load(&mut self) -> &mut Segment {
        self.loads().pop().expect("a PT_LOAD")
    }

    /// Makes a program header of `kind` out of PT_GNU_STACK, which every linker writes and no loader needs.
    pub fn add_segment(&mut self, kind: ProgramType) -> &mut Segment {
        let segment = self.segment(PT_GNU_STACK);
        segment.p_type.set(Le, kind);
        segment
    }

    /// The file offset of a link-time address.
    pub fn offset(&mut self, address: u64) -> usize {
        let load = self.loads().into_iter().find(|s| {
            let start = s.p_vaddr.get(Le);
            (start..start + s.p_filesz.get(Le)).contains(&address)
        });
        let load = load.expect("an address of the file");
        (address - load.p_vaddr.get(Le) + load.p_offset.get(Le)) as usize
    }

    /// The address after the last byte of the image.
    pub fn end(&mut self) -> u64 {
        let load = self.last_load();
        load.p_vaddr.get(Le) + load.p_memsz.get(Le)
    }

    /// The dynamic section up to and with DT_NULL.
    pub fn entries(&mut self) -> &mut [Entry] {
        let segment = self.segment(PT_DYNAMIC);
        let (offset, size) = (segment.p_offset.get(Le) as usize, segment.p_filesz.get(Le) as usize);
        pod::slice_from_bytes_mut(&mut self.bytes[offset..], size / size_of::<Entry>()).expect("inside the file").0
    }

    /// The first dynamic entry with a tag.
    pub fn entry(&mut self, tag: DynamicTag) -> &mut Entry {
        self.entries().iter_mut().find(|e| e.d_tag.get(Le) == tag).expect("an entry with this tag")
    }

    /// The value of the first dynamic entry with a tag.
    pub fn value(&mut self, tag: DynamicTag) -> u64 {
        self.entry(tag).d_val.get(Le)
    }

    /// Changes it.
    pub fn set(&mut self, tag: DynamicTag, value: u64) {
        self.entry(tag).d_val.set(Le, value);
    }

    /// Turns the first entry with tag `old` into one with tag `new`.
    pub fn rename(&mut self, old: DynamicTag, new: DynamicTag) -> &mut Entry {
        let entry = self.entry(old);
        entry.d_tag.set(Le, new);
        entry
    }

    /// Adds an entry in place of the first DT_NULL, of which linkers leave several.
    pub fn add(&mut self, tag: DynamicTag, value: u64) {
        let nulls = self.entries().iter().filter(|e| e.d_tag.get(Le).0 == 0).count();
        assert!(nulls > 1, "no room in the dynamic section");
        let entry = self.entries().iter_mut().find(|e| e.d_tag.get(Le).0 == 0).expect("a DT_NULL");
        entry.d_tag.set(Le, tag);
        entry.d_val.set(Le, value);
    }

    /// The file offset of what the dynamic entry `tag` points to.
    pub fn offset_of(&mut self, tag: DynamicTag) -> usize {
        let address = self.value(tag);
        self.offset(address)
    }

    /// The structure number `index` of the table that the dynamic entry `tag` points to.
    pub fn row<T: Pod>(&mut self, tag: DynamicTag, index: usize) -> &mut T {
        let offset = self.offset_of(tag) + index * size_of::<T>();
        self.at(offset)
    }

    /// The symbol number `index`.
    pub fn symbol(&mut self, index: usize) -> &mut Symbol {
        self.row(DT_SYMTAB, index)
    }
}
