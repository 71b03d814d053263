//! What was measured, for people and for programs.

use super::rounds::{Group, Series, Spread};
use super::spawn::Setting;
use std::fmt::Write;

/// A table: one line for each program, way and setting.
pub fn table(floor: &Spread, groups: &[Group]) -> String {
    let mut text = format!(
        "fork, exec and exit without a loader: {:.0} us. Levels 0 and 1 are compared with the system's loader binding lazily,\n\
         level 2 with LD_BIND_NOW: medians of neighbouring starts. 'net' is the same with the above taken off both. 'pages' are those\n\
         brought in, 'faults' the page faults among them (the others were filled in advance), 'own' the pages that belong to no file.\n\
         'sealing' is the share of the time that sealing takes: by how much level 1 is longer than level 0 beside it.\n\n",
        floor.median
    );
    let _ = writeln!(
        text,
        "{:<9} {:<6} {:>4} {:<20} {:>8}  {:>5} {:>13} {:>5} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6}",
        "program",
        "way",
        "libs",
        "loader",
        "us",
        "ratio",
        "min..max",
        "net",
        "sealing",
        "pages",
        "faults",
        "own",
        "calls",
        "seals"
    );
    for group in groups {
        for setting in [Setting::SystemLazy, Setting::SystemNow, Setting::Seal(0), Setting::Seal(1), Setting::Seal(2)] {
            let Some(series) = group.of(setting) else { continue };
            let ratio = match setting {
                Setting::Seal(_) => {
                    let Spread { median, min, max } = series.ratio;
                    format!("{median:>5.3} {:>13} {:>5.3}", format!("{min:.2}..{max:.2}"), series.net.median)
                }
                _ => format!("{:>5} {:>13} {:>5}", "", "", ""),
            };
            let sealing = series.sealing.map_or(String::new(), |share| format!("{:.1}%", share.median * 100.0));
            let _ = writeln!(
                text,
                "{:<9} {:<6} {:>4} {:<20} {:>8.0}  {ratio} {sealing:>7} {:>6.0} {:>6} {:>6} {:>6} {:>6}",
                group.program,
                group.way.word(),
                series.observed.libraries,
                setting.word(),
                series.time.median,
                series.faults.median,
                series.traps.map_or("?".into(), |traps| traps.to_string()),
                series.observed.dirty,
                series.observed.calls,
                series.observed.seals,
            );
        }
    }
    text
}

/// The same as JSON. Times are in microseconds.
pub fn json(floor: &Spread, groups: &[Group]) -> String {
    let groups: Vec<String> = groups.iter().map(json_group).collect();
    format!("{{\"floor\":{},\"groups\":[\n{}\n]}}", json_spread(floor), groups.join(",\n"))
}

fn json_group(group: &Group) -> String {
    let series: Vec<String> = group.series.iter().map(json_series).collect();
    // Names of programs are words of the command line: a quotation mark or backslash in one is escaped, controls are dropped.
    let name: String = group.program.chars().filter(|c| !c.is_control()).collect();
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    let (way, rounds) = (group.way.word(), group.rounds);
    format!(
        "{{\"program\":\"{name}\",\"way\":\"{way}\",\"rounds\":{rounds},\"series\":[\n  {}]}}",
        series.join(",\n  ")
    )
}

fn json_series(series: &Series) -> String {
    let observed = &series.observed;
    format!(
        "{{\"setting\":\"{}\",\"time\":{},\"opponent\":\"{}\",\"ratio\":{},\"net\":{},\"sealing\":{},\"pages\":{},\
         \"faults\":{},\"own_pages\":{},\"calls\":{},\"seals\":{},\"libraries\":{}}}",
        series.setting.word(),
        json_spread(&series.time),
        series.setting.opponent().word(),
        json_spread(&series.ratio),
        json_spread(&series.net),
        series.sealing.as_ref().map_or("null".into(), json_spread),
        json_spread(&series.faults),
        series.traps.map_or("null".into(), |traps| traps.to_string()),
        observed.dirty,
        observed.calls,
        observed.seals,
        observed.libraries,
    )
}

fn json_spread(spread: &Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{{\"median\":{median:.4},\"min\":{min:.4},\"max\":{max:.4}}}")
}
