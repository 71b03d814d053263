//! The plan as data.

use loader::addr::{range_len, Addr};
use loader::error::Lossy;
use loader::program::TABLES;
use loader::seal::plan::{Item, ObjectPlan, SealPlan};
use loader::seal::tunables::SealTunables;
use serde::Serialize;
use std::ops::Range;

/// The plan of one start.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The file that would run; of a script its interpreter.
    pub program: String,
    /// `glibc.rtld.seal`
    pub level: u8,
    /// What would be mapped, in the order in which it would be sealed.
    pub objects: Vec<Mapped>,
    /// Whether the interpreter seals its heap, whose size is known at run time only.
    pub interpreter_heap_sealed: bool,
    /// Sums over the objects.
    pub total: Total,
}

/// One object.
#[derive(Debug, Serialize)]
pub struct Mapped {
    /// Its file, the program's `argv[0]`, or a name in brackets for what is no object.
    pub name: String,
    /// Bytes, from its first to its last page.
    pub size: u64,
    /// How many calls of mseal it costs.
    pub mseal_calls: usize,
    /// Whether its note asks that it not be sealed, which level 2 does not heed.
    pub opt_out_overruled: bool,
    /// Its parts in ascending order.
    pub parts: Vec<Part>,
}

/// A stretch of pages.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Bytes from the object's first page.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// `text`, `rodata`, `relro`, `got`, `got-shared`, `data`, `gap`, or `whole` for what has no parts.
    pub part: String,
    /// Whether it would be sealed.
    pub sealed: bool,
    /// Why not.
    pub why_not: Option<String>,
}

/// Sums.
#[derive(Debug, Default, Serialize)]
pub struct Total {
    /// Bytes that would be sealed.
    pub sealed_bytes: u64,
    /// Bytes that would not.
    pub open_bytes: u64,
    /// Calls of mseal if no two objects lie side by side; neighbours share one. The interpreter's heap is not counted.
    pub mseal_calls: usize,
}

impl Plan {
    /// Shows `plan`, made for objects that are mapped in this process: their addresses mean nothing, so they are left out.
    pub fn new(program: String, tunables: &SealTunables<'_>, plan: &SealPlan) -> Plan {
        let objects: Vec<Mapped> = plan.objects.iter().map(|object| mapped(object, plan)).collect();
        let sealed_bytes = plan.calls().map(|(range, _)| size(&range)).sum();
        // The tables lie in the interpreter's data and must not be counted twice.
        let images = plan.objects.iter().filter(|object| object.name != TABLES);
        let bytes: u64 = images.flat_map(|object| object.items.iter()).map(|item| size(&item.range)).sum();
        let total = Total {
            sealed_bytes,
            open_bytes: bytes - sealed_bytes,
            mseal_calls: objects.iter().map(|object| object.mseal_calls).sum(),
        };
        let interpreter_heap_sealed = tunables.seals();
        Plan { program, level: tunables.level.number(), objects, interpreter_heap_sealed, total }
    }
}

fn mapped(object: &ObjectPlan, plan: &SealPlan) -> Mapped {
    let first = object.items.first().map_or(Addr(0), |item| item.range.start);
    let last = object.items.last().map_or(Addr(0), |item| item.range.end);
    let part = |item: &Item| Part {
        offset: size(&(first..item.range.start)),
        size: size(&item.range),
        part: item.part.to_string(),
        sealed: item.open.is_none(),
        why_not: item.open.map(|why| why.to_string()),
    };
    // The tables cost a call of their own only where the data around them stays open.
    let around =
        plan.objects.iter().find(|other| object.name == TABLES && other.name != TABLES && contains(other, first));
    let mseal_calls = match around {
        Some(image) => calls(&[image, object]) - calls(&[image]),
        None => calls(&[object]),
    };
    let name = Lossy(&object.name).to_string();
    let opt_out_overruled = object.overruled;
    Mapped {
        name,
        size: size(&(first..last)),
        mseal_calls,
        opt_out_overruled,
        parts: object.items.iter().map(part).collect(),
    }
}

fn contains(object: &ObjectPlan, address: Addr) -> bool {
    object.items.iter().any(|item| item.range.contains(&address))
}

/// How many calls the objects cost when nothing else is near.
fn calls(objects: &[&ObjectPlan]) -> usize {
    SealPlan { objects: objects.iter().map(|&object| object.clone()).collect(), asked: None }.calls().count()
}

fn size(range: &Range<Addr>) -> u64 {
    range_len(range) as u64
}
