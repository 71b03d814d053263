//! The plan as text.

use super::model::{Mapped, Part, Plan};
use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use std::fmt::Write;

/// One JSON object and a newline.
pub fn json(plan: &Plan) -> String {
    match serde_json::to_string_pretty(plan) {
        Ok(text) => text + "\n",
        // The plan holds nothing that JSON could not: no map, no number beyond its range.
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    }
}

/// A heading, one table per object, and the sums.
pub fn tables(plan: &Plan) -> String {
    let mut text = format!("{}: level {}\n\n", plan.program, plan.level);
    for object in &plan.objects {
        let Mapped { name, mseal_calls, .. } = object;
        let overruled = if object.opt_out_overruled { ", opts out by its note (overruled at level 2)" } else { "" };
        let _ = writeln!(text, "{name}: {}, {}{overruled}", size(object.size), calls(*mseal_calls));
        let _ = writeln!(text, "{}\n", table(&object.parts));
    }
    let (total, count) = (&plan.total, plan.objects.len());
    let (sealed, open) = (size(total.sealed_bytes), size(total.open_bytes));
    let _ = writeln!(text, "Total of {count}: {sealed} sealed, {open} open, at most {}", calls(total.mseal_calls));
    if plan.interpreter_heap_sealed {
        text.push_str(
            "Neighbours in memory share a call. The interpreter's heap is sealed too: how much that is, and in how many calls, is\n\
             known at run time only.\n",
        );
    }
    text
}

fn calls(count: usize) -> String {
    format!("{count} mseal call{}", if count == 1 { "" } else { "s" })
}

fn table(parts: &[Part]) -> String {
    let mut table = Table::new();
    let rows = parts.iter().map(|part| {
        let seal = match &part.why_not {
            None => "sealed".to_owned(),
            Some(why_not) => format!("open: {why_not}"),
        };
        [format!(" {:#x}", part.offset), size(part.size), part.part.clone(), seal]
    });
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows);
    for column in [0, 1] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A number of bytes; whole pages, so KiB are exact.
fn size(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}
