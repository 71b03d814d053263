//! What a check has found, as a value: for the trials of a test binary, and for the tables of `ldseal conform`.

use crate::compare;
use crate::loader::{Level, Way};
use std::fmt;

/// Something that both loaders were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What was observed: `ended`, `stdout`, `stderr`, `bindings`, `pages`, `descriptors`.
    pub aspect: &'static str,
    /// Under the reference.
    pub reference: String,
    /// Under the loader under test.
    pub tested: String,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.aspect == compare::ENDED {
            return writeln!(f, "  ended: expected {}, got {}", self.reference, self.tested);
        }
        let (reference, tested) = (self.reference.as_bytes(), self.tested.as_bytes());
        f.write_str(&compare::stream_difference(self.aspect, reference, tested).unwrap_or_default())
    }
}

/// A run that went another way under the loader under test.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The name of the run, often empty.
    pub run: String,
    /// The way into the loader.
    pub way: Way,
    /// The seal level.
    pub level: Level,
    /// Which start it was, of those that were asked for.
    pub start: (u32, u32),
    /// What differs.
    pub observations: Vec<Observation>,
    /// The shell commands that show the two sides: the reference, the loader under test.
    pub commands: [String; 2],
}

impl Difference {
    /// Where it was seen, in words.
    pub fn place(&self) -> String {
        let Difference { run, way, level, start: (start, of), .. } = self;
        let place = if *of == 1 { format!("{way} {level}") } else { format!("{way} {level} start {start} of {of}") };
        if run.is_empty() {
            place
        } else {
            format!("{run} {place}")
        }
    }

    /// What differs, in words.
    pub fn details(&self) -> String {
        self.observations.iter().map(Observation::to_string).collect()
    }
}

/// What came of a check.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Nothing differs.
    Agrees,
    /// These runs differ.
    Differs(Vec<Difference>),
    /// It can't be tried here, for this reason.
    Skipped(String),
    /// It shows nothing, for this reason: it can't be built, or does not even do under the reference what its manifest says.
    Broken(String),
}
