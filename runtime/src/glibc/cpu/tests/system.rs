//! The processor that the tests run on.

use super::*;
use crate::glibc::system_loader;
use proptest::prelude::*;

/// Keeps this thread, and what it starts, on one processor: CPUID says on which it is executed.
fn stay_on_one_processor() {
    let allowed = rustix::thread::sched_getaffinity(None).expect("the set of processors");
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).expect("a processor");
    let mut one = rustix::thread::CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).expect("a processor of our own set");
}

fn compare(tunables: &str) {
    let output = system_loader::run("--list-diagnostics", &[("GLIBC_TUNABLES", tunables)]);
    assert_same(&diagnostics(&Processor, tunables), &relevant(&output), tunables);
}

#[test]
fn equals_the_system_loader() {
    if !system_loader::is_glibc_2_36("cpu::tests::system::equals_the_system_loader") {
        return;
    }
    stay_on_one_processor();
    for tunables in [
        "",
        "glibc.cpu.hwcaps=-AVX2,-AVX512F",
        "glibc.cpu.hwcaps=-AVX2:glibc.cpu.hwcaps=-BMI2",
        "glibc.cpu.hwcaps=AVX2,,-ERMS,-NoSuch,Prefer_ERMS",
        "glibc.cpu.hwcaps=-XSAVEC",
        "glibc.cpu.hwcaps=-XSAVE",
        "glibc.cpu.hwcaps=-XSAVE,-XSAVEC",
        "glibc.cpu.hwcaps=-OSXSAVE",
        "glibc.cpu.hwcaps=-SSE2",
        "glibc.cpu.hwcaps=-SSE4_2,Slow_SSE4_2,-Fast_Unaligned_Copy",
        "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER,Prefer_PMINUB_for_stringop,Slow_BSF",
        "glibc.cpu.hwcaps=-I586,-I686,I586,-CX8,-CMOV",
        "glibc.cpu.x86_non_temporal_threshold=0x100000",
        "glibc.cpu.x86_non_temporal_threshold=0x4040",
        "glibc.cpu.x86_non_temporal_threshold=0x4041",
        "glibc.cpu.x86_non_temporal_threshold=0xfffffffffffffff",
        "glibc.cpu.x86_non_temporal_threshold=0x1000000000000000",
        "glibc.cpu.x86_rep_movsb_threshold=512:glibc.cpu.x86_rep_stosb_threshold=1",
        "glibc.cpu.x86_rep_movsb_threshold=513:glibc.cpu.x86_rep_stosb_threshold=0",
        "glibc.cpu.x86_data_cache_size=0x123456:glibc.cpu.x86_shared_cache_size=-1",
        "glibc.cpu.x86_data_cache_size=12k:glibc.cpu.x86_shared_cache_size=big",
        "glibc.cpu.x86_ibt=off:glibc.cpu.x86_shstk=on:glibc.cpu.hwcap_mask=0",
    ] {
        compare(tunables);
    }
}

#[test]
fn equals_the_system_loader_under_any_list() {
    if !system_loader::is_glibc_2_36("cpu::tests::system::equals_the_system_loader_under_any_list") {
        return;
    }
    stay_on_one_processor();
    let names: Vec<&str> =
        PREFERRED_NAMES.iter().map(|(name, _)| *name).chain(["AVX", "AVX2", "AVX512F", "XSAVE", "XSAVEC"]).collect();
    let item = (any::<bool>(), proptest::sample::select(names)).prop_map(|(off, name)| {
        let sign = if off { "-" } else { "" };
        format!("{sign}{name}")
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 16, ..Default::default() });
    let lists = proptest::collection::vec(item, 1..6);
    let outcome = runner.run(&lists, |list| {
        compare(&format!("glibc.cpu.hwcaps={}", list.join(",")));
        Ok(())
    });
    outcome.expect("every list");
}
