//! Structures and enumerators, read from DWARF.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use gimli::{AttributeValue, DebuggingInformationEntry, UnitOffset, UnitRef};
use object::{Object, ObjectSection};

use runtime::glibc::layout::{CPU_KINDS, DESCRIPTORS, SCHEMA};

use crate::Error;

/// A member of a structure; members of nested structures are members too, their names joined by dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its offset in bits.
    pub bit_offset: u64,
    /// Its width in bits, for a bit-field.
    pub bit_size: Option<u64>,
    /// Its size in bytes, if it has one.
    pub size: u64,
    /// The number of elements, for an array.
    pub length: Option<u64>,
}

/// One complete definition of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its size in bytes.
    pub size: u64,
    /// Its members.
    pub members: BTreeMap<String, Member>,
}

/// All complete definitions in the files read, by tag and by typedef.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    structures: BTreeMap<String, Vec<Structure>>,
    enumerators: BTreeMap<String, u64>,
}

/// Nested structures deeper than this have no members of interest.
const MAX_DEPTH: usize = 3;

type Slice<'a> = gimli::EndianSlice<'a, gimli::LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

impl Definitions {
    /// Adds what a file with debug information defines.
    ///
    /// # Errors
    /// If it can't be read or its debug information makes no sense.
    pub fn read(&mut self, path: &Path) -> Result<(), Error> {
        let data = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = object::File::parse(&*data)?;
        let sections = gimli::DwarfSections::load(|id| match file.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data(),
            None => Ok(Cow::Borrowed(&[][..])),
        })?;
        let dwarf = sections.borrow(|section| gimli::EndianSlice::new(section, gimli::LittleEndian));
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let unit = dwarf.unit(header)?;
            UnitReader { unit: unit.unit_ref(&dwarf) }.read_into(self)?;
        }
        Ok(())
    }

    /// The definitions of a name, no two alike.
    pub fn structures(&self, name: &str) -> &[Structure] {
        self.structures.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of an enumerator.
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.enumerators.get(name).copied()
    }

    fn add(&mut self, name: String, structure: Structure) {
        let known = self.structures.entry(name).or_default();
        if !known.contains(&structure) {
            known.push(structure);
        }
    }
}

/// Whether a structure of this name is asked for.
fn is_wanted(name: &str) -> bool {
    SCHEMA.iter().any(|structure| structure.glibc == name)
        || DESCRIPTORS.iter().any(|descriptor| descriptor.glibc == name)
}

/// One compilation unit.
struct UnitReader<'a, 'd> {
    unit: UnitRef<'a, Slice<'d>>,
}

impl<'d> UnitReader<'_, 'd> {
    fn read_into(&self, definitions: &mut Definitions) -> Result<(), Error> {
        for entry in self.children(None)? {
            match entry.tag() {
                gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type | gimli::DW_TAG_typedef => {
                    if let Some(name) = self.name(&entry)?.filter(|name| is_wanted(name)) {
                        if let Some(structure) = self.structure(&entry)? {
                            definitions.add(name, structure);
                        }
                    }
                }
                gimli::DW_TAG_enumeration_type => self.read_enumerators(&entry, definitions)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_enumerators(&self, entry: &Entry<'d>, definitions: &mut Definitions) -> Result<(), Error> {
        for enumerator in self.children(Some(entry.offset()))? {
            let Some(name) = self.name(&enumerator)? else { continue };
            if !CPU_KINDS.iter().any(|(_, wanted)| *wanted == name) {
                continue;
            }
            let value = number(&enumerator, gimli::DW_AT_const_value).ok_or_else(|| format!("{name}: no value"))?;
            if *definitions.enumerators.entry(name.clone()).or_insert(value) != value {
                return Err(Error(format!("{name}: two values")));
            }
        }
        Ok(())
    }

    /// The definition behind a structure or typedef; `None` if it is only declared here, or something else.
    fn structure(&self, entry: &Entry<'d>) -> Result<Option<Structure>, Error> {
        let Some(definition) = self.resolve(entry.clone())? else { return Ok(None) };
        if !is_aggregate(&definition) || definition.has_attr(gimli::DW_AT_declaration) {
            return Ok(None);
        }
        let Some(size) = number(&definition, gimli::DW_AT_byte_size) else { return Ok(None) };
        let mut members = BTreeMap::new();
        self.read_members(&definition, 0, "", MAX_DEPTH, &mut members)?;
        Ok(Some(Structure { size, members }))
    }

    fn read_members(
        &self,
        structure: &Entry<'d>,
        base: u64,
        prefix: &str,
        depth: usize,
        members: &mut BTreeMap<String, Member>,
    ) -> Result<(), Error> {
        for entry in self.children(Some(structure.offset()))? {
            if entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let name = self.name(&entry)?;
            let (size, length) = self.extent(&entry)?;
            let offset = base + number(&entry, gimli::DW_AT_data_member_location).unwrap_or(0);
            let bit_size = number(&entry, gimli::DW_AT_bit_size);
            let bit_offset = match number(&entry, gimli::DW_AT_data_bit_offset) {
                Some(bits) => base * 8 + bits,
                None if bit_size.is_some() => return Err(Error(format!("{name:?}: bit-field older than DWARF 5"))),
                None => offset * 8,
            };
            let full_name = format!("{prefix}{}", name.as_deref().unwrap_or_default());
            if name.is_some() {
                members.insert(full_name.clone(), Member { bit_offset, bit_size, size, length });
            }
            let nested = self.type_of(&entry)?.filter(|nested| is_aggregate(nested) && depth > 0 && bit_size.is_none());
            if let Some(nested) = nested {
                // The members of an unnamed union or structure are members of what is around it.
                let prefix = if name.is_some() { format!("{full_name}.") } else { prefix.to_owned() };
                self.read_members(&nested, offset, &prefix, depth - 1, members)?;
            }
        }
        Ok(())
    }

    /// The size in bytes of an entry's type, and its number of elements if that is an array.
    fn extent(&self, entry: &Entry<'d>) -> Result<(u64, Option<u64>), Error> {
        let Some(definition) = self.type_of(entry)? else { return Ok((0, None)) };
        match definition.tag() {
            gimli::DW_TAG_pointer_type => Ok((8, None)),
            gimli::DW_TAG_array_type => {
                let mut length = 1;
                for dimension in self.children(Some(definition.offset()))? {
                    let count = number(&dimension, gimli::DW_AT_count);
                    let last = number(&dimension, gimli::DW_AT_upper_bound);
                    length *= count.or(last.map(|last| last.wrapping_add(1))).unwrap_or(0);
                }
                let (element, _) = self.extent(&definition)?;
                Ok((element * length, Some(length)))
            }
            _ => Ok((number(&definition, gimli::DW_AT_byte_size).unwrap_or(0), None)),
        }
    }

    /// The type of an entry, without typedefs and qualifiers.
    fn type_of(&self, entry: &Entry<'d>) -> Result<Option<Entry<'d>>, Error> {
        match entry.attr_value(gimli::DW_AT_type) {
            Some(AttributeValue::UnitRef(offset)) => self.resolve(self.unit.entry(offset)?),
            Some(_) => Err(Error("a type in another unit".to_owned())),
            None => Ok(None),
        }
    }

    /// What a chain of typedefs and qualifiers ends at.
    fn resolve(&self, entry: Entry<'d>) -> Result<Option<Entry<'d>>, Error> {
        match entry.tag() {
            gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => self.type_of(&entry),
            _ => Ok(Some(entry)),
        }
    }

    fn children(&self, of: Option<UnitOffset>) -> Result<Vec<Entry<'d>>, Error> {
        let mut tree = self.unit.entries_tree(of)?;
        let mut children = tree.root()?.children();
        let mut entries = Vec::new();
        while let Some(child) = children.next()? {
            entries.push(child.entry().clone());
        }
        Ok(entries)
    }

    fn name(&self, entry: &Entry<'d>) -> Result<Option<String>, Error> {
        match entry.attr_value(gimli::DW_AT_name) {
            Some(value) => Ok(Some(self.unit.attr_string(value)?.to_string_lossy().into_owned())),
            None => Ok(None),
        }
    }
}

fn is_aggregate(entry: &Entry<'_>) -> bool {
    matches!(entry.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type)
}

fn number(entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr(attribute)?.udata_value()
}
