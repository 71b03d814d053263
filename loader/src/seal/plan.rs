//! What a commit will seal: a pure value, computed before the first seal, that can be printed and compared.

use crate::addr::Addr;
use crate::elf::header::{ProgramHeader, PT_GNU_MUTABLE};
use crate::error::LoadError;
use crate::got;
use crate::image::Image;
use crate::object::{Kind, Object};
use crate::relro::RelroPages;
use crate::seal::tunables::{Policy, SealLevel, SealTunables};
use crate::seal::{glob, marks};
use crate::static_program::StaticProgram;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, Range};
use goblin::elf64::dynamic::DF_TEXTREL;

/// What a part of an image is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Executable code.
    Text,
    /// Read-only data.
    RoData,
    /// Read-only after relocation.
    Relro,
    /// Slots of the PLT and nothing else; read-only at level 2.
    Got,
    /// Slots of the PLT beside writable data.
    GotShared,
    /// Writable data and bss.
    Data,
    /// Pages between segments.
    Gap,
    /// The vDSO or the interpreter's heap: whole, without parts.
    Whole,
}

/// One stretch of pages, and whether it will be sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Whole pages in the process.
    pub range: Range<Addr>,
    /// What they are for.
    pub part: Part,
    /// `None` if they will be sealed, or why not.
    pub open: Option<Why>,
}

/// Why something is left open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// `glibc.rtld.seal=0`
    Off,
    /// Writable data is sealed at level 2 or with `ldseal.data=1` only.
    Data,
    /// `ldseal.vdso=0`
    Vdso,
    /// The object matches `ldseal.exclude`.
    Excluded,
    /// `PT_GNU_MUTABLE`
    Mutable,
    /// The object's own note asks for it ([`marks::opts_out`]).
    OptOut,
    /// `ldseal.policy=marked`, and the object or the program has no `GNU_PROPERTY_MEMORY_SEAL`.
    Unmarked,
    /// A static program protects it, or relocates it, itself.
    Static,
}

/// The parts of one object. Only those of an image take memory.
#[derive(Clone, Debug)]
pub enum Items {
    /// Of an image.
    Image(Vec<Item>),
    /// Of what has no parts.
    Whole(Item),
}

impl Deref for Items {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        match self {
            Items::Image(items) => items,
            Items::Whole(item) => core::slice::from_ref(item),
        }
    }
}

impl PartialEq for Items {
    fn eq(&self, other: &Items) -> bool {
        **self == **other
    }
}

impl Eq for Items {}

/// The plan for one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectPlan {
    /// The object's name.
    pub name: Cow<'static, [u8]>,
    /// Its parts in ascending order.
    pub items: Items,
    /// Whether its note asks that it not be sealed, and the level does not heed that.
    pub overruled: bool,
}

/// The plan of one commit.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SealPlan {
    /// By object.
    pub objects: Vec<ObjectPlan>,
    /// What has been asked for already ([`apply::first`](super::apply::first)): if it is a call of its own it is not made again.
    pub asked: Option<Range<Addr>>,
}

impl SealPlan {
    /// Plans one more object. The slots of its PLT are told from its data where that makes a difference, or if `tell_slots`.
    pub fn add(&mut self, name: &[u8], object: &Object, tunables: &SealTunables<'_>, tell_slots: bool) {
        let whole = all_open(name, object.kind, &object.headers, &object.image, tunables);
        let seals_data = tunables.data.at(tunables.level);
        let mut items = match object.kind {
            Kind::Vdso => alloc::vec![Item { range: object.image.range.clone(), part: Part::Whole, open: None }],
            _ => parts(&object.image, object.relro.as_ref()),
        };
        if tell_slots || tunables.level == SealLevel::Enforced {
            cut_slots(&mut items, object);
        }
        for item in &mut items {
            let is_data = match item.part {
                Part::Data | Part::GotShared => true,
                Part::Got => tunables.level != SealLevel::Enforced,
                _ => false,
            };
            item.open = whole.or((is_data && !seals_data).then_some(Why::Data));
        }
        self.finish(name, items, &object.headers, &object.image, whole, tunables.level);
    }

    /// Plans a static program. What it writes after its start is its own to protect: RELRO, text that it relocates, and its data, whose
    /// pages allocators of static C libraries use up to their ends.
    pub fn add_static(&mut self, name: &[u8], program: &StaticProgram, tunables: &SealTunables<'_>) {
        let whole = all_open(name, Kind::Executable, &program.headers, &program.image, tunables);
        let mut items = parts(&program.image, program.relro.as_ref());
        for item in &mut items {
            let own = match item.part {
                Part::Relro | Part::Got | Part::GotShared | Part::Data => true,
                Part::Text | Part::RoData => program.relocates_text,
                Part::Gap | Part::Whole => false,
            };
            item.open = whole.or(own.then_some(Why::Static));
        }
        self.finish(name, items, &program.headers, &program.image, whole, tunables.level);
    }

    fn finish(
        &mut self,
        name: &[u8],
        mut items: Vec<Item>,
        headers: &[ProgramHeader],
        image: &Image,
        whole: Option<Why>,
        level: SealLevel,
    ) {
        for range in mutable_ranges(headers, image) {
            punch(&mut items, &range);
        }
        // Level 1 would have left it open.
        let overruled = level == SealLevel::Enforced && whole.is_none() && marks::opts_out(headers, image);
        self.objects.push(ObjectPlan { name: Cow::Owned(name.to_vec()), items: Items::Image(items), overruled });
    }

    /// Plans a range without parts.
    pub fn add_range(&mut self, name: &'static [u8], range: Range<Addr>, open: Option<Why>) {
        let items = Items::Whole(Item { range, part: Part::Whole, open });
        self.objects.push(ObjectPlan { name: Cow::Borrowed(name), items, overruled: false });
    }

    /// Leaves of each object only what is sealed, its neighbouring parts as one. The calls are the same, and found faster.
    pub fn merge(&mut self) {
        for object in &mut self.objects {
            let Items::Image(items) = &mut object.items else { continue };
            items.retain(|item| item.open.is_none());
            items.sort_unstable_by_key(|item| item.range.start);
            items.dedup_by(|next, before| {
                let touches = next.range.start <= before.range.end;
                if touches {
                    before.range.end = before.range.end.max(next.range.end);
                }
                touches
            });
        }
    }

    /// The system calls that carry the plan out, by address: neighbours are merged, so that an object costs one call or none. Each comes
    /// with the name of the first object it covers. No memory is taken for them: that would be pages which a start without seals does
    /// not touch.
    pub fn calls(&self) -> impl Iterator<Item = (Range<Addr>, &[u8])> {
        let mut done = Addr(0);
        core::iter::from_fn(move || {
            let (mut call, name) =
                self.sealed().filter(|(range, _)| range.start >= done).min_by_key(|(range, _)| range.start)?;
            let touches = |call: &Range<Addr>, next: &Range<Addr>| {
                next.start <= call.end && next.start >= call.start && next.end > call.end
            };
            while let Some((next, _)) = self.sealed().find(|(next, _)| touches(&call, next)) {
                call.end = next.end;
            }
            // What begins at the end of a call belongs to it.
            done = Addr(call.end.0.saturating_add(1));
            Some((call, name))
        })
        .filter(|(range, _)| self.asked.as_ref() != Some(range))
    }

    /// What is to be sealed, as it is planned.
    fn sealed(&self) -> impl Iterator<Item = (Range<Addr>, &[u8])> {
        self.objects.iter().flat_map(|object| {
            let sealed = object.items.iter().filter(|item| item.open.is_none());
            sealed.map(|item| (item.range.clone(), &*object.name))
        })
    }
}

/// Why nothing of an object will be sealed, if that is so.
fn all_open(
    name: &[u8],
    kind: Kind,
    headers: &[ProgramHeader],
    image: &Image,
    tunables: &SealTunables<'_>,
) -> Option<Why> {
    let own = matches!(kind, Kind::Vdso | Kind::Interpreter);
    match tunables.policy {
        _ if tunables.level == SealLevel::Off => Some(Why::Off),
        _ if is_excluded(name, tunables) => Some(Why::Excluded),
        _ if kind == Kind::Vdso && !tunables.vdso => Some(Why::Vdso),
        Policy::UnmarkedProgram => Some(Why::Unmarked),
        Policy::Marked if !own && !marks::asks_for_seal(headers, image) => Some(Why::Unmarked),
        _ if tunables.level == SealLevel::BestEffort && marks::opts_out(headers, image) => Some(Why::OptOut),
        _ => None,
    }
}

fn is_excluded(name: &[u8], tunables: &SealTunables<'_>) -> bool {
    tunables.exclude.is_some_and(|pattern| glob::matches_object(pattern, name))
}

/// Checks that an object may be loaded where seals are enforced. Text that relocations write is not the file's: its pages are private
/// copies, and in file-backed memory the kernel lets even sealed ones be thrown away, after which the unrelocated text is back. So level 2
/// loads no such object, unless it is never sealed anyway.
///
/// # Errors
/// It has text relocations.
pub fn check(name: &[u8], object: &Object, tunables: &SealTunables<'_>) -> Result<(), LoadError> {
    let enforced = tunables.level == SealLevel::Enforced;
    let seals = || all_open(name, object.kind, &object.headers, &object.image, tunables).is_none();
    if enforced && object.dynamic.has_flag(DF_TEXTREL) && seals() {
        return Err(LoadError::fault(
            object.display_name(),
            "text relocations are not allowed where sealing is enforced",
        ));
    }
    Ok(())
}

/// Cuts an image into its parts.
fn parts(image: &Image, relro: Option<&RelroPages>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let relro = relro.map(|r| image.run_time(r));
    let mut push = |range: Range<Addr>, part| {
        if range.start < range.end {
            items.push(Item { range, part, open: None });
        }
    };
    for segment in &image.segments {
        let pages = image.run_time(&segment.pages);
        match &relro {
            Some(r) if segment.prot.write && r.start < pages.end && pages.start < r.end => {
                let (start, end) = (r.start.max(pages.start), r.end.min(pages.end));
                push(pages.start..start, Part::Data);
                push(start..end, Part::Relro);
                push(end..pages.end, Part::Data);
            }
            _ if segment.prot.write => push(pages, Part::Data),
            _ if segment.prot.exec => push(pages, Part::Text),
            _ => push(pages, Part::RoData),
        }
    }
    for gap in image.gaps().filter(|gap| !image.holes.contains(gap)) {
        push(gap, Part::Gap);
    }
    items.sort_by_key(|i| i.range.start);
    items
}

/// Tells the slots of the PLT from other writable data.
fn cut_slots(items: &mut Vec<Item>, object: &Object) {
    let Some(pages) = got::pages(object) else { return };
    let (all, own) = (object.image.run_time(&pages.all), object.image.run_time(&pages.own));
    let part = |page: Addr| match page {
        page if own.contains(&page) => Part::Got,
        page if all.contains(&page) => Part::GotShared,
        _ => Part::Data,
    };
    let mut out = Vec::with_capacity(items.len() + 3);
    for item in items.drain(..) {
        if item.part != Part::Data {
            out.push(item);
            continue;
        }
        let mut cuts = [item.range.start, all.start, own.start, own.end, all.end, item.range.end];
        cuts.iter_mut().for_each(|cut| *cut = (*cut).clamp(item.range.start, item.range.end));
        cuts.sort_unstable();
        for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
            out.push(Item { range: cut[0]..cut[1], part: part(cut[0]), open: None });
        }
    }
    *items = out;
}

/// The pages that the object wants to stay open.
fn mutable_ranges<'h>(headers: &'h [ProgramHeader], image: &'h Image) -> impl Iterator<Item = Range<Addr>> + 'h {
    headers.iter().filter(|h| h.p_type == PT_GNU_MUTABLE && h.p_memsz > 0).filter_map(|h| {
        let start = crate::addr::VAddr(h.p_vaddr);
        let end = start.checked_add(h.p_memsz)?.page_ceil()?;
        Some(image.run_time(&(start.page_floor()..end)))
    })
}

/// Marks a range open, splitting the items it cuts.
fn punch(items: &mut Vec<Item>, hole: &Range<Addr>) {
    let mut out = Vec::with_capacity(items.len() + 2);
    for item in items.drain(..) {
        let (start, end) = (item.range.start.max(hole.start), item.range.end.min(hole.end));
        if start >= end || item.open.is_some() {
            out.push(item);
            continue;
        }
        for (range, open) in
            [(item.range.start..start, None), (start..end, Some(Why::Mutable)), (end..item.range.end, None)]
        {
            if range.start < range.end {
                out.push(Item { range, part: item.part, open });
            }
        }
    }
    *items = out;
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Part::Text => "text",
            Part::RoData => "rodata",
            Part::Relro => "relro",
            Part::Got => "got",
            Part::GotShared => "got-shared",
            Part::Data => "data",
            Part::Gap => "gap",
            Part::Whole => "whole",
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Why::Off => "level 0",
            Why::Data => "writable data (ldseal.data)",
            Why::Vdso => "ldseal.vdso=0",
            Why::Excluded => "ldseal.exclude",
            Why::Mutable => "PT_GNU_MUTABLE",
            Why::OptOut => "its own note (ldseal mark)",
            Why::Unmarked => "not marked (ldseal.policy)",
            Why::Static => "a static program's own",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(start: usize, end: usize, open: Option<Why>) -> Item {
        Item { range: Addr(start)..Addr(end), part: Part::Text, open }
    }

    #[test]
    fn neighbours_merge_into_one_call() {
        let plan = SealPlan {
            objects: alloc::vec![
                ObjectPlan {
                    name: b"b"[..].into(),
                    items: Items::Image(alloc::vec![item(0x3000, 0x4000, None), item(0x4000, 0x5000, Some(Why::Data))]),
                    overruled: false,
                },
                ObjectPlan {
                    name: b"a"[..].into(),
                    items: Items::Image(alloc::vec![item(0x1000, 0x2000, None), item(0x2000, 0x3000, None)]),
                    overruled: false,
                },
            ],
            asked: None,
        };
        let mut merged = plan.clone();
        merged.merge();
        for plan in [&plan, &merged] {
            assert!(plan.calls().eq([(Addr(0x1000)..Addr(0x4000), &b"a"[..])]));
        }
        let plan = SealPlan { asked: Some(Addr(0x1000)..Addr(0x4000)), ..plan };
        assert_eq!(plan.calls().count(), 0);
    }

    #[test]
    fn calls_are_by_address_and_do_not_meet() {
        let object = |name: &[u8], items: &[(usize, usize)]| ObjectPlan {
            name: name.to_vec().into(),
            items: Items::Image(items.iter().map(|&(start, end)| item(start, end, None)).collect()),
            overruled: false,
        };
        // The second lies in a hole of the first, the third within the second, and nothing beside the last.
        let objects = alloc::vec![
            object(b"holes", &[(0x1000, 0x2000), (0x6000, 0x8000)]),
            object(b"inner", &[(0x3000, 0x5000), (0x5000, 0x6000)]),
            object(b"tables", &[(0x4000, 0x5000)]),
            object(b"alone", &[(0xa000, 0xb000)]),
        ];
        let mut plan = SealPlan { objects, asked: None };
        let expected = [
            (Addr(0x1000)..Addr(0x2000), &b"holes"[..]),
            (Addr(0x3000)..Addr(0x8000), &b"inner"[..]),
            (Addr(0xa000)..Addr(0xb000), &b"alone"[..]),
        ];
        assert!(plan.calls().eq(expected.clone()));
        plan.merge();
        assert_eq!(plan.objects[1].items.len(), 1);
        assert!(plan.calls().eq(expected));
    }

    #[test]
    fn a_mutable_range_splits_an_item() {
        let mut items = alloc::vec![item(0x1000, 0x5000, None)];
        punch(&mut items, &(Addr(0x2000)..Addr(0x3000)));
        assert_eq!(items.len(), 3);
        assert_eq!(items[1].open, Some(Why::Mutable));
        assert_eq!(items[2].range, Addr(0x3000)..Addr(0x5000));
    }
}
