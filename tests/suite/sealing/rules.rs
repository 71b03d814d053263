//! What must be sealed and what must stay open.

use conformance::attack::table::{Attacked, Table, DISCARD};

/// What the level and the tunables ask for.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Whether anything is sealed.
    pub sealed: bool,
    /// Whether writable data is sealed too.
    pub data: bool,
    /// Whether the vDSO is sealed.
    pub vdso: bool,
    /// Names, without folders, of objects that stay open.
    pub excluded: &'static [&'static str],
}

impl Expected {
    /// Level 0.
    pub const NOTHING: Expected = Expected { sealed: false, data: false, vdso: false, excluded: &[] };
    /// Level 1.
    pub const LEVEL_1: Expected = Expected { sealed: true, data: false, vdso: true, excluded: &[] };
    /// Level 2.
    pub const LEVEL_2: Expected = Expected { data: true, ..Expected::LEVEL_1 };
}

/// What is never sealed, wherever it lies.
const NEVER: [&str; 6] = ["stack", "tls", "malloc", "large-malloc", "thread-stack", "thread-tls"];

/// Libraries that were opened without RTLD_NODELETE.
const PLUGINS: [&str; 2] = ["libplugin.so", "libplugged.so"];

/// What is not as expected, in words. `interpreter` is the loader's name without folders.
pub fn violations(table: &Table, expected: &Expected, interpreter: &str) -> Vec<String> {
    let mut report = Vec::new();
    let mut unmet = |what: &str, attacked: &Attacked| report.push(format!("{what}: {}", attacked.told()));
    for object in table.objects() {
        let base = object.rsplit('/').next().unwrap_or(object);
        if base == interpreter || base.starts_with("ld-linux") {
            continue;
        }
        let open = !expected.sealed
            || expected.excluded.contains(&base)
            || PLUGINS.contains(&base)
            || (base.starts_with("linux-vdso") && !expected.vdso);
        check_object(table, object, open, expected.data, &mut unmet);
    }
    check_interpreter(table, expected, interpreter, &mut unmet);
    for what in NEVER {
        match table.of(what) {
            Some(attacked) if attacked.open() => {}
            Some(attacked) => unmet(&format!("{what} must stay open"), attacked),
            None => report_missing(what, &mut unmet, table),
        }
    }
    for attacked in table.regions.iter().filter(|a| ["[heap]", "[stack]"].contains(&a.region.name.as_str())) {
        if !attacked.open() {
            unmet("must stay open", attacked);
        }
    }
    if !expected.sealed {
        for attacked in table.regions.iter().filter(|a| !a.open()) {
            unmet("nothing is to be sealed", attacked);
        }
    }
    report
}

/// An address that lies in no mapping: the table is wrong, which no expectation allows.
fn report_missing(what: &str, unmet: &mut impl FnMut(&str, &Attacked), table: &Table) {
    if let Some(first) = table.regions.first() {
        unmet(&format!("{what} lies in no mapping; the first is"), first);
    }
}

fn check_object(table: &Table, object: &str, open: bool, data: bool, unmet: &mut impl FnMut(&str, &Attacked)) {
    let image = table.image(object);
    let writable = table.data(object);
    let relro = table.relro(object);
    for attacked in table.within(&image) {
        let touches =
            |range: &std::ops::Range<u64>| attacked.region.start < range.end && range.start < attacked.region.end;
        let is_data = writable.iter().any(touches);
        if open || (is_data && !data) {
            if !attacked.open() {
                unmet(&format!("{object}: must stay open"), attacked);
            }
        } else if !attacked.sealed() {
            unmet(&format!("{object}: must be sealed"), attacked);
        } else if touches(&relro) && attacked.outcomes[DISCARD] != "EPERM" {
            unmet(&format!("{object}: RELRO can be thrown away"), attacked);
        }
    }
    for attacked in table.within(&relro).into_iter().filter(|a| a.region.writable()) {
        unmet(&format!("{object}: RELRO can be written"), attacked);
    }
}

/// The interpreter may leave its own data open at any level but 2, and hold more mappings than program headers tell.
fn check_interpreter(table: &Table, expected: &Expected, interpreter: &str, unmet: &mut impl FnMut(&str, &Attacked)) {
    for attacked in table.regions.iter().filter(|a| a.region.base_name() == interpreter) {
        let sealable = !attacked.region.writable() || expected.data;
        if expected.sealed && sealable && !attacked.sealed() {
            unmet("the interpreter must be sealed", attacked);
        }
        if attacked.region.writable() && attacked.region.permissions.contains('x') {
            unmet("the interpreter is writable and executable", attacked);
        }
    }
}
