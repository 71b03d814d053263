//! The ELF header, the program headers and the map plan: what is planned is what PT_LOAD says, byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::addr::{VAddr, PAGE_SIZE};
use loader::elf::header::{self, ProgramHeader};
use loader::elf::property::properties;
use loader::map::plan::{plan, MapPlan, Region, Source};
use loader_fuzz::File;

fuzz_target!(|input: &[u8]| {
    let file = File::new(input);
    let Some(headers) = file.program_headers() else { return };
    let _ = header::wants_executable_stack(&headers);
    for segment in &headers {
        let _ = properties(file.segment(segment), segment.p_align);
    }
    let size = input.len() as u64;
    for e_type in [2, 3] {
        let Ok(plan) = plan(e_type, &headers, size) else { continue };
        check_regions(&plan, size);
        for load in headers.iter().filter(|h| h.p_type == 1 && h.p_memsz > 0) {
            check_segment(&plan, load);
        }
    }
});

fn check_regions(plan: &MapPlan, size: u64) {
    assert!(!plan.is_empty() && plan.align >= PAGE_SIZE && plan.align.is_power_of_two());
    let mut end = plan.span.start;
    for Region { pages, source, zero_from, .. } in &plan.regions {
        assert!(end <= pages.start && pages.start < pages.end && pages.end <= plan.span.end);
        assert!(pages.start.page_floor() == pages.start && pages.end.page_floor() == pages.end);
        end = pages.end;
        match *source {
            Source::File { offset } => assert!(offset % PAGE_SIZE == 0 && offset < size),
            Source::Copy { offset, len } => {
                assert!(offset + len <= size && len <= pages.end.0 - pages.start.0);
            }
            Source::Zero => {}
        }
        assert!(zero_from.is_none_or(|from| pages.end.0 - PAGE_SIZE <= from.0 && from < pages.end));
    }
    assert_eq!(end, plan.span.end);
    assert!(plan.relro.as_ref().is_none_or(|relro| plan.span.start <= relro.start && relro.end <= plan.span.end));
    for gap in plan.gaps() {
        assert!(gap.start < gap.end && plan.span.start < gap.start && gap.end < plan.span.end);
    }
}

/// Looks at the bytes around every edge of a segment.
fn check_segment(plan: &MapPlan, load: &ProgramHeader) {
    let (file_end, end) = (load.p_vaddr + load.p_filesz, load.p_vaddr + load.p_memsz);
    let page_after_file = file_end / PAGE_SIZE * PAGE_SIZE + PAGE_SIZE;
    for at in [load.p_vaddr, file_end.wrapping_sub(1), file_end, page_after_file - 1, page_after_file, end - 1] {
        if at < load.p_vaddr || at >= end {
            continue;
        }
        let expected = (at < file_end).then(|| load.p_offset + (at - load.p_vaddr));
        assert_eq!(byte_at(plan, VAddr(at)), expected, "at {at:#x}");
    }
}

/// The file offset of the byte that the plan puts at an address; `None` is zero.
fn byte_at(plan: &MapPlan, at: VAddr) -> Option<u64> {
    let region = plan.regions.iter().find(|region| region.pages.contains(&at)).expect("mapped");
    let within = at.0 - region.pages.start.0;
    match region.source {
        _ if region.zero_from.is_some_and(|from| from <= at) => None,
        Source::File { offset } => Some(offset + within),
        Source::Copy { offset, len } => (within < len).then_some(offset + within),
        Source::Zero => None,
    }
}
