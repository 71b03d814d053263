//! Starts in alternation, and what they amount to.

use super::patched::{Program, ARRIVED};
use super::spawn::{Cost, Setting, Start, Way};
use super::traps;
use conformance::attack::maps;
use conformance::attack::trace::{Stop, Tracee, MSEAL};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const EXIT_GROUP: u64 = 231;
const PAGE: u64 = 4096;

/// Middle and extremes of a series.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// What a process had done when it arrived at its entry point.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// System calls made.
    pub calls: usize,
    /// Those of mseal.
    pub seals: usize,
    /// Pages of its own: changed, or in no file.
    pub dirty: u64,
    /// Libraries mapped, beside the program and the loader.
    pub libraries: usize,
}

/// One setting of a group.
#[derive(Debug, Clone)]
pub struct Series {
    /// Which.
    pub setting: Setting,
    /// Microseconds.
    pub time: Spread,
    /// To the neighbouring start of [`Setting::opponent`], pair by pair.
    pub ratio: Spread,
    /// The same ratio when what fork, exec and exit cost without a loader is taken off both.
    pub net: Spread,
    /// What sealing takes of it: how much longer it took than the neighbouring start at level 0, as a part of its own time.
    /// Of level 1 alone, which differs from level 0 in nothing else; level 2 binds more too.
    pub sealing: Option<Spread>,
    /// Pages brought in: page faults, and pages that were filled in advance.
    pub faults: Spread,
    /// Page faults that interrupted the process, if the kernel lets them be counted.
    pub traps: Option<u64>,
    /// Under ptrace.
    pub observed: Observed,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// After so many rounds,
    pub rounds: usize,
    /// or after this time.
    pub time: Duration,
}

/// A program, entered in one way, under all settings.
#[derive(Debug, Clone)]
pub struct Group {
    /// The program's name.
    pub program: String,
    /// How the loader was entered.
    pub way: Way,
    /// How many rounds were made.
    pub rounds: usize,
    /// In the order of [`Setting::ALL`].
    pub series: Vec<Series>,
}

impl Group {
    /// Starts `program` under each setting in turn, within `limits`. `floor` is the median of [`floor`].
    pub fn measure(program: &Program, way: Way, interpreter: &Path, floor: f64, limits: Limits) -> io::Result<Group> {
        let starts = Setting::ALL.map(|setting| Start::new(program, way, setting, interpreter));
        let starts = starts.into_iter().collect::<io::Result<Vec<_>>>()?;
        let observed = starts.iter().map(observe).collect::<io::Result<Vec<_>>>()?;
        let traps = starts.iter().map(traps::count).collect::<io::Result<Vec<_>>>()?;
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); starts.len()];
        let begin = Instant::now();
        for round in 0..limits.rounds {
            if round > 2 && begin.elapsed() > limits.time {
                break;
            }
            // Every other round backwards: nobody is always the first after a change of the file in the caches.
            for index in 0..starts.len() {
                let index = if round % 2 == 0 { index } else { starts.len() - 1 - index };
                costs[index].push(starts[index].run()?);
            }
        }
        let series =
            (0..starts.len()).map(|index| series(index, &costs, floor, (observed[index], traps[index]))).collect();
        Ok(Group { program: program.name.clone(), way, rounds: costs[0].len(), series })
    }

    /// The series of `setting`.
    pub fn of(&self, setting: Setting) -> Option<&Series> {
        self.series.iter().find(|series| series.setting == setting)
    }
}

fn microseconds(cost: &Cost) -> f64 {
    cost.time.as_secs_f64() * 1e6
}

fn series(index: usize, costs: &[Vec<Cost>], floor: f64, (observed, traps): (Observed, Option<u64>)) -> Series {
    let setting = Setting::ALL[index];
    let own = &costs[index];
    let opponent = Setting::ALL.iter().position(|&s| s == setting.opponent()).unwrap_or(index);
    let ratio = |floor: f64| {
        let pairs = own.iter().zip(&costs[opponent]);
        Spread::of(pairs.map(|(a, b)| (microseconds(a) - floor) / (microseconds(b) - floor)).collect())
    };
    let sealing = (setting == Setting::Seal(1)).then(|| Setting::ALL.iter().position(|&s| s == Setting::Seal(0)));
    let sealing = sealing.flatten().map(|bare| shares(own, &costs[bare]));
    Series {
        setting,
        time: Spread::of(own.iter().map(microseconds).collect()),
        ratio: ratio(0.0),
        net: ratio(floor),
        sealing,
        faults: Spread::of(own.iter().map(|cost| cost.faults as f64).collect()),
        traps,
        observed,
    }
}

/// Of each start the part by which it is longer than its neighbour in `bare`. Noise can make it negative.
fn shares(own: &[Cost], bare: &[Cost]) -> Spread {
    let pairs = own.iter().zip(bare).map(|(own, bare)| (microseconds(own), microseconds(bare)));
    Spread::of(pairs.map(|(own, bare)| (own - bare) / own).collect())
}

/// Microseconds that fork, exec and exit of `nothing` take.
pub fn floor(nothing: &Path, rounds: usize) -> io::Result<Spread> {
    let start = Start::alone(nothing)?;
    let costs = (0..rounds.max(100)).map(|_| start.run()).collect::<io::Result<Vec<_>>>()?;
    Ok(Spread::of(costs.iter().map(microseconds).collect()))
}

/// Follows a start to its entry point, whose exit_group is told from a loader's by the status.
fn observe(start: &Start) -> io::Result<Observed> {
    let mut tracee = Tracee::start(&mut start.command())?;
    let (mut calls, mut seals) = (0, 0);
    loop {
        match tracee.resume()? {
            Stop::Enter { number: EXIT_GROUP, arguments: [status, ..] } if status == ARRIVED as u64 => break,
            Stop::Enter { number, .. } => {
                calls += 1;
                seals += usize::from(number == MSEAL);
            }
            Stop::Leave(_) => {}
            Stop::Ended(ending) => return Err(io::Error::other(format!("it did not arrive at its entry: {ending}"))),
        }
    }
    let regions = maps::of_process(tracee.pid())?;
    let dirty = regions.iter().map(|region| region.anonymous).sum::<u64>() / PAGE;
    let code = regions.iter().filter(|r| r.permissions.contains('x') && r.name.starts_with('/'));
    let objects: BTreeSet<&str> = code.map(|region| region.name.as_str()).collect();
    Ok(Observed { calls, seals, dirty, libraries: objects.len().saturating_sub(2) })
}
