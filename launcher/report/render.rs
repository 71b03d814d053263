//! The report as text.

use super::model::{Group, Kind, KindTotal, Region, Report, SystemState};
use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use std::fmt::Write;

/// One JSON object and a newline.
pub fn json(report: &Report) -> String {
    match serde_json::to_string_pretty(report) {
        Ok(text) => text + "\n",
        // The report holds nothing that JSON could not: no map, no number beyond its range.
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    }
}

/// A heading, one table per object, and a summary.
pub fn tables(report: &Report) -> String {
    let mut text = String::new();
    let level = match report.level {
        Some(level) => format!("level {level} ({})", report.level_source),
        None => format!("level unknown ({})", report.level_source),
    };
    let seal = if report.under_ld_seal { format!("under ld-seal.so, {level}") } else { report.level_source.into() };
    let _ = writeln!(text, "Process {}: {}\n{seal}\n", report.pid, report.command.join(" "));
    let (files, groups): (Vec<&Group>, Vec<&Group>) = report.objects.iter().partition(|group| is_mapped_file(group));
    for group in groups {
        let (sealed, mapped) = (size(group.sealed_bytes), size(group.mapped_bytes));
        let known = if report.kernel.shows_seals { "" } else { "known to be " };
        let _ = writeln!(text, "{} ({}): {sealed} of {mapped} {known}sealed", group.name, group.role);
        let kinds = group.kinds.iter().filter(|_| group.bias.is_some());
        let totals: Vec<String> = kinds.map(kind_total).collect();
        if !totals.is_empty() {
            let _ = writeln!(text, "  {}", totals.join(", "));
        }
        if group.opts_out {
            let heeded = if group.sealed_bytes == 0 { "heeded" } else { "overruled" };
            let _ = writeln!(text, "  opts out by its own note: {heeded}");
        }
        let _ = writeln!(text, "{}\n", table(group.regions.iter().map(row)));
    }
    if !files.is_empty() {
        let _ = writeln!(text, "Mapped files that are no objects");
        let rows = files.iter().flat_map(|group| group.regions.iter().map(|region| file_row(group, region)));
        let _ = writeln!(text, "{}\n", table(rows));
    }
    let _ = write!(text, "{}", summary(report));
    text
}

fn is_mapped_file(group: &Group) -> bool {
    group.regions.iter().all(|region| region.kind == Kind::MappedFile)
}

fn table(rows: impl Iterator<Item = [String; 6]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A file is one of many that have nothing to do with the loader: its name says more than the reason.
fn file_row(group: &Group, region: &Region) -> [String; 6] {
    let [range, protections, size, _, _, _] = row(region);
    [range, protections, size, state(region).into(), group.name.clone(), String::new()]
}

fn state(region: &Region) -> &'static str {
    match region.sealed {
        Some(true) => "sealed",
        Some(false) => "open",
        None => "unknown",
    }
}

fn row(region: &Region) -> [String; 6] {
    let range = region.range();
    let backing = if region.file.is_some() { "file" } else { "" };
    let seal = match &region.why_not {
        None => "sealed".to_owned(),
        Some(why_not) => format!("{}: {why_not}", state(region)),
    };
    [
        format!(" {:012x}-{:012x}", range.start, range.end),
        region.protections.clone(),
        size(region.size),
        region.kind.to_string(),
        backing.into(),
        seal,
    ]
}

fn kind_total(total: &KindTotal) -> String {
    let (sealed, mapped) = (total.sealed_bytes / 1024, size(total.mapped_bytes));
    format!("{} {sealed} of {mapped}", total.kind)
}

fn system(report: &Report) -> String {
    let mut text = String::from("The kernel's own mappings\n");
    for mapping in &report.system {
        let why = mapping.why_not.as_ref().filter(|_| mapping.state == SystemState::Open);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let _ = writeln!(text, "  {:<14} {}{why}", mapping.name, mapping.state);
    }
    text
}

fn limits(report: &Report) -> String {
    let mut text = format!("{}\n\nOn this kernel:\n", report.not_stopped);
    for limit in &report.limits {
        let _ = writeln!(text, "  {}: {}", limit.what, limit.here);
    }
    text
}

fn summary(report: &Report) -> String {
    let (summary, kernel) = (&report.summary, &report.kernel);
    let mseal = if kernel.mseal { "has mseal" } else { "has no mseal (Linux 6.10 is the first)" };
    let system = if kernel.seals_system_mappings { "seals" } else { "does not seal" };
    let sealed = if kernel.shows_seals { "Sealed" } else { "Known to be sealed" };
    format!(
        "{sealed}: {} of {} mapped, {} of {} in images of objects, {} of {} mappings\n\
         Kernel: {mseal}, {system} [vdso] and [vvar] by itself (CONFIG_MSEAL_SYSTEM_MAPPINGS)\n\n{}\n{}\n{}\n",
        size(summary.sealed_bytes),
        size(summary.mapped_bytes),
        size(summary.sealed_object_bytes),
        size(summary.object_bytes),
        summary.sealed_mappings,
        summary.mappings,
        self::system(report),
        limits(report),
        report.verdict.line()
    )
}

/// A number of bytes; whole pages, so KiB are exact.
fn size(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Address, Kernel, Role, Summary, Verdict, VERSION};
    use super::*;

    fn report(shows_seals: bool) -> Report {
        let mut group = Group::new("/x".into(), Role::Executable, Some(Address(0)));
        group.add(Region {
            start: Address(0),
            end: Address(4096),
            size: 4096,
            protections: "r-xp".into(),
            kind: Kind::Text,
            file: None,
            sealed: shows_seals.then_some(false),
            why_not: Some("because".into()),
        });
        Report {
            version: VERSION,
            pid: 1,
            command: Vec::new(),
            under_ld_seal: true,
            level: None,
            level_source: "",
            kernel: Kernel { mseal: true, seals_system_mappings: false, shows_seals },
            objects: vec![group],
            system: Vec::new(),
            summary: Summary::default(),
            verdict: Verdict::default(),
            limits: Vec::new(),
            not_stopped: "",
        }
    }

    #[test]
    fn what_is_not_known_is_not_called_unsealed() {
        let told = tables(&report(true));
        assert!(
            told.contains("0 KiB of 4 KiB sealed\n")
                && told.contains("\nSealed: 0 KiB")
                && told.contains("open: because")
        );
        let untold = tables(&report(false));
        assert!(untold.contains("0 KiB of 4 KiB known to be sealed\n") && untold.contains("unknown: because"));
        assert!(untold.contains("\nKnown to be sealed: 0 KiB"));
    }
}
