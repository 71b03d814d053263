//! `_dl_find_object`: which object an address lies in, for unwinders. It is called for every frame of every C++ exception, from any
//! thread and from signal handlers, so it takes no lock and allocates nothing.
//!
//! Writers, which hold the loader's lock, fill the table that is not in use and then switch. A reader that was overtaken notices by the
//! version and starts again. A table that has become too small is left behind: its successor is twice as large, so what is left behind
//! is less than what is in use.

use crate::process;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{fence, AtomicPtr, AtomicUsize, Ordering};
use loader::addr::Addr;
use loader::linker::Linker;
use loader::object::{Kind, NamespaceId, ObjectId};
use loader::rule::{holds, Rule};

/// One object.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    start: usize,
    end: usize,
    map: usize,
    eh_frame_header: usize,
}

struct Table {
    rows: AtomicPtr<Row>,
    len: AtomicUsize,
}

struct Room(UnsafeCell<[usize; 2]>);
// SAFETY: touched by writers only, which hold the loader's lock.
unsafe impl Sync for Room {}

static TABLES: [Table; 2] =
    [const { Table { rows: AtomicPtr::new(core::ptr::null_mut()), len: AtomicUsize::new(0) } }; 2];
/// Bit 0 says which table is in use; the whole counts changes.
static VERSION: AtomicUsize = AtomicUsize::new(0);
static ROOM: Room = Room(UnsafeCell::new([0; 2]));

/// Publishes the objects that are loaded now.
pub fn publish(linker: &Linker, map_of: impl Fn(ObjectId) -> *mut u8) {
    publish_if(linker, |_| true, map_of);
}

fn publish_if(linker: &Linker, wanted: impl Fn(ObjectId) -> bool, map_of: impl Fn(ObjectId) -> *mut u8) {
    let mut rows: Vec<Row> = Vec::new();
    for (id, object) in linker.objects.iter().filter(|(id, _)| wanted(*id)) {
        let eh_frame_header = object.eh_frame_header().map_or(0, |a| a.0);
        let map = map_of(id) as usize;
        let mut push = |start: Addr, end: Addr| rows.push(Row { start: start.0, end: end.0, map, eh_frame_header });
        let image = &object.image;
        if object.kind == Kind::Library || image.gaps().next().is_none() {
            let end = image.segments.last().map_or(image.range.end, |s| image.bias.run_time(s.memory.end));
            push(image.range.start, end);
        } else {
            for segment in &image.segments {
                push(image.bias.run_time(segment.memory.start), image.bias.run_time(segment.memory.end));
            }
        }
    }
    rows.sort_unstable_by_key(|row| row.start);
    let version = VERSION.load(Ordering::Relaxed);
    if version > 0 && !holds(Rule::UnwinderInformed) {
        return;
    }
    if version > 0 && is_known(&TABLES[version & 1], &rows) {
        return;
    }
    let spare = (version + 1) & 1;
    let table = &TABLES[spare];
    // SAFETY: the caller holds the loader's lock.
    let room = unsafe { &mut (*ROOM.0.get())[spare] };
    if *room < rows.len() {
        *room = (rows.len() * 2).max(16);
        table.rows.store(Vec::leak(alloc::vec![Row::default(); *room]).as_mut_ptr(), Ordering::Relaxed);
    }
    let target = table.rows.load(Ordering::Relaxed);
    for (index, row) in rows.iter().enumerate() {
        // SAFETY: the table has room for all rows. A reader that is still in it from two changes ago sees torn rows, and the version
        // tells it so.
        unsafe { core::ptr::write_volatile(target.add(index), *row) };
    }
    table.len.store(rows.len(), Ordering::Release);
    VERSION.store(version + 1, Ordering::Release);
}

/// Whether a table tells that already: after a transaction that failed.
fn is_known(table: &Table, rows: &[Row]) -> bool {
    let known = table.rows.load(Ordering::Relaxed);
    // SAFETY: the table has that many rows, and only whoever publishes changes them.
    table.len.load(Ordering::Relaxed) == rows.len() && rows == unsafe { core::slice::from_raw_parts(known, rows.len()) }
}

/// The row of an address.
fn find(pc: usize) -> Option<Row> {
    loop {
        let version = VERSION.load(Ordering::Acquire);
        let table = &TABLES[version & 1];
        // The length first: with newer rows than the length was for, there is room for more than it says, never for less.
        let len = table.len.load(Ordering::Acquire);
        let rows = table.rows.load(Ordering::Relaxed);
        let (mut low, mut high) = (0, len);
        let mut found = None;
        while low < high {
            let middle = (low + high) / 2;
            // SAFETY: a table has room for as many rows as any length it ever had, and is never freed.
            let row = unsafe { core::ptr::read_volatile(rows.add(middle)) };
            if pc < row.start {
                high = middle;
            } else if pc >= row.end {
                low = middle + 1;
            } else {
                found = Some(row);
                break;
            }
        }
        fence(Ordering::Acquire);
        if VERSION.load(Ordering::Relaxed) == version {
            return found;
        }
    }
}

/// The namespace of the code at an address that is being executed; the program's for code that is not of any object.
pub fn namespace_of(pc: Addr) -> NamespaceId {
    let fields = &process::layout().link_map;
    let number = find(pc.0).map_or(0, |row| {
        // SAFETY: the row of an object that is executing holds its link map, which lives as long as it.
        unsafe { super::globals::Structure::at(row.map as *mut u8, fields.size) }.get_u64(fields.l_ns)
    });
    NamespaceId(number as u8)
}

/// `_dl_find_object`: 0 and the result filled in, or -1.
///
/// # Safety
/// `result` must be valid for writes of glibc's `struct dl_find_object`.
pub unsafe extern "C" fn dl_find_object(pc: *const u8, result: *mut u8) -> i32 {
    let Some(row) = find(pc as usize) else {
        return -1;
    };
    let Some(fields) = &process::layout().dl_find_object else {
        return -1;
    };
    // SAFETY: the caller's contract.
    let out = unsafe { super::globals::Structure::at(result, fields.size) };
    out.put_u64(fields.dlfo_flags, 0);
    out.put_addr(fields.dlfo_map_start, Addr(row.start));
    out.put_addr(fields.dlfo_map_end, Addr(row.end));
    out.put_addr(fields.dlfo_link_map, Addr(row.map));
    out.put_addr(fields.dlfo_eh_frame, Addr(row.eh_frame_header));
    if let Some(sframe) = fields.dlfo_sframe {
        out.put_u64(sframe, 0);
    }
    0
}

/// Publishes all but some objects, which are about to be unmapped.
pub fn publish_without(linker: &Linker, dead: &[ObjectId], map_of: impl Fn(ObjectId) -> *mut u8) {
    publish_if(linker, |id| !dead.contains(&id), map_of);
}
