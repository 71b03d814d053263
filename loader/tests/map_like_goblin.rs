//! The map plan of every shared object of this system, compared with what goblin's parser says of its PT_LOADs: every byte of a segment
//! is planned with the segment's protections, from the place in the file where it lies, and zero behind the file's part.

use goblin::elf::program_header::{ProgramHeader, PT_LOAD};
use loader::addr::{VAddr, PAGE_SIZE};
use loader::elf::header;
use loader::map::plan::{self, MapPlan, Region, Source};
use loader::sys::Prot;
use std::fs;
use std::path::{Path, PathBuf};

/// Where libraries are, and how many of each are looked at.
const FOLDERS: [(&str, usize); 4] =
    [("/lib/x86_64-linux-gnu", 500), ("/lib64", 200), ("/usr/lib", 100), ("/usr/bin", 200)];

/// Larger files are left out: one more of them says nothing new.
const LARGEST: u64 = 64 << 20;

#[test]
fn every_library_agrees_with_goblin() {
    let mut checked = 0;
    for (folder, most) in FOLDERS {
        for path in files(Path::new(folder)).into_iter().take(most) {
            checked += usize::from(agrees(&path));
        }
    }
    assert!(checked > 0, "there is not one ELF file in {FOLDERS:?}");
    println!("{checked} files");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let regular = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LARGEST);
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(regular).collect();
    files.sort();
    files
}

/// Checks a file; false if it is none that can be mapped, in goblin's opinion too.
fn agrees(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    let parsed = goblin::elf::Elf::parse(&bytes);
    let elf = match &parsed {
        Ok(elf) if elf.is_64 && elf.header.e_machine == 62 && (elf.header.e_type == 2 || elf.header.e_type == 3) => elf,
        _ => {
            assert!(
                parsed.is_err() || header::parse(&bytes).is_err(),
                "{}: goblin takes it for no program",
                path.display()
            );
            return false;
        }
    };
    let own = header::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let table = &bytes[own.phoff as usize..];
    let headers: Vec<_> = (0..own.phnum).filter_map(|i| header::program_header(table, i)).collect();
    let loads: Vec<&ProgramHeader> =
        elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0).collect();
    let plan = match plan::plan(own.e_type, &headers, bytes.len() as u64) {
        Ok(plan) => plan,
        // Debug files have the program headers of the library but not its bytes.
        Err(reason) => {
            let outside = loads.iter().any(|p| p.p_offset + p.p_filesz > bytes.len() as u64);
            assert!(loads.is_empty() || outside, "{}: refused: {reason}", path.display());
            return false;
        }
    };
    compare(&plan, elf, &loads, path);
    true
}

fn compare(plan: &MapPlan, elf: &goblin::elf::Elf<'_>, loads: &[&ProgramHeader], path: &Path) {
    let name = path.display();
    let page_end = |at: u64| at.next_multiple_of(PAGE_SIZE);
    let start = loads.iter().map(|p| p.p_vaddr).min().unwrap_or(0) / PAGE_SIZE * PAGE_SIZE;
    let end = loads.iter().map(|p| page_end(p.p_vaddr + p.p_memsz)).max().unwrap_or(0);
    assert_eq!(plan.span, VAddr(start)..VAddr(end), "{name}");
    assert_eq!(plan.fixed, elf.header.e_type == 2, "{name}");
    let align = loads.iter().map(|p| p.p_align).max().unwrap_or(0).max(PAGE_SIZE);
    assert_eq!(plan.align, align, "{name}");
    let mut planned: u64 = 0;
    for p in loads {
        let last = page_end(p.p_vaddr + p.p_memsz) - PAGE_SIZE;
        for page in (p.p_vaddr / PAGE_SIZE * PAGE_SIZE..=last).step_by(PAGE_SIZE as usize) {
            let mut regions = plan.regions.iter().filter(|r| r.pages.contains(&VAddr(page)));
            let region = regions.next().unwrap_or_else(|| panic!("{name}: nothing at {page:#x}"));
            assert!(regions.next().is_none(), "{name}: two regions at {page:#x}");
            check_page(region, page, p, &format!("{name} {page:#x}"));
            planned += PAGE_SIZE;
        }
    }
    let total: u64 = plan.regions.iter().map(|r| r.pages.end.0 - r.pages.start.0).sum();
    assert_eq!(total, planned, "{name}: something is planned that no PT_LOAD asks for");
}

/// Checks what the plan says of a page of a segment.
fn check_page(region: &Region, page: u64, p: &ProgramHeader, place: &str) {
    let wanted = Prot { read: p.is_read(), write: p.is_write(), exec: p.is_executable() };
    assert_eq!(region.prot, wanted, "{place}");
    let into = page - region.pages.start.0;
    let file_end = p.p_vaddr + p.p_filesz;
    // How far the file's bytes reach in this page.
    let provided = file_end.clamp(page, page + PAGE_SIZE) - page;
    let offset = (page + p.p_offset).wrapping_sub(p.p_vaddr);
    match region.source {
        Source::File { offset: from } => {
            assert_eq!(from + into, offset, "{place}");
            assert!(provided > 0, "{place}: a page of the file where the file has none");
            let cleared = file_end < page + PAGE_SIZE && p.p_memsz > p.p_filesz;
            assert_eq!(
                region.zero_from.filter(|at| (page..page + PAGE_SIZE).contains(&at.0)),
                cleared.then_some(VAddr(file_end)),
                "{place}"
            );
        }
        Source::Copy { offset: from, len } => {
            assert_eq!(from + into, offset, "{place}");
            let copied = len.saturating_sub(into).min(PAGE_SIZE);
            assert_eq!(copied, provided, "{place}");
        }
        Source::Zero => assert_eq!(provided, 0, "{place}"),
    }
}
