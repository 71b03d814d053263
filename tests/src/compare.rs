//! What counts as a difference between two runs.

use crate::process::Outcome;
use crate::verdict::Observation;

/// What is made equal before comparing, because no rule says it is the same in two runs.
#[derive(Debug, Clone, Default)]
pub struct Normaliser {
    /// Texts that stand for the same thing on both sides, such as the build tree: (text, placeholder).
    pub replacements: Vec<(String, &'static str)>,
    /// Hexadecimal numbers of six digits and more.
    pub addresses: bool,
    /// Decimal numbers in parentheses: process and thread ids of messages.
    pub pids: bool,
    /// The order of lines: threads that print.
    pub order: bool,
    /// stdout doesn't count.
    pub ignore_stdout: bool,
    /// stderr doesn't count.
    pub ignore_stderr: bool,
}

impl Normaliser {
    /// `outcome` with everything made equal that does not count.
    pub fn apply(&self, outcome: &Outcome) -> Outcome {
        let stream = |bytes: &[u8], ignored| if ignored { Vec::new() } else { self.stream(bytes) };
        Outcome {
            ending: outcome.ending,
            stdout: stream(&outcome.stdout, self.ignore_stdout),
            stderr: stream(&outcome.stderr, self.ignore_stderr),
        }
    }

    /// A text with everything made equal that does not count.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.stream(text.as_bytes())).into_owned()
    }

    fn stream(&self, bytes: &[u8]) -> Vec<u8> {
        let mut result = bytes.to_vec();
        for (text, placeholder) in &self.replacements {
            result = replace(&result, text.as_bytes(), placeholder.as_bytes());
        }
        if self.addresses {
            result = without_addresses(&result);
        }
        if self.pids {
            result = without_pids(&result);
        }
        if self.order {
            let mut lines: Vec<&[u8]> = result.split_inclusive(|&b| b == b'\n').collect();
            lines.sort_unstable();
            result = lines.concat();
        }
        result
    }
}

fn replace(bytes: &[u8], text: &[u8], placeholder: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        match rest.strip_prefix(text) {
            Some(after) if !text.is_empty() => {
                result.extend_from_slice(placeholder);
                rest = after;
            }
            _ => {
                result.push(rest[0]);
                rest = &rest[1..];
            }
        }
    }
    result
}

fn without_addresses(bytes: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let digits = rest.strip_prefix(b"0x").map_or(0, |t| t.iter().take_while(|b| b.is_ascii_hexdigit()).count());
        if digits >= 6 {
            result.extend_from_slice(b"0xADDRESS");
            rest = &rest[2 + digits..];
        } else {
            result.push(first);
            rest = after;
        }
    }
    result
}

fn without_pids(bytes: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        result.push(first);
        let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
        rest = after;
        if first == b'(' && digits > 0 && after.get(digits) == Some(&b')') {
            result.extend_from_slice(b"PID");
            rest = &after[digits..];
        }
    }
    result
}

/// The aspect of an [`Observation`] that is how a process ended.
pub const ENDED: &str = "ended";

/// What differs between the two.
pub fn observations(expected: &Outcome, got: &Outcome) -> Vec<Observation> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = (ENDED, expected.ending.to_string(), got.ending.to_string());
    let stdout = ("stdout", text(&expected.stdout), text(&got.stdout));
    let stderr = ("stderr", text(&expected.stderr), text(&got.stderr));
    let all = [ended, stdout, stderr].into_iter();
    all.filter(|(_, reference, tested)| reference != tested)
        .map(|(aspect, reference, tested)| Observation { aspect, reference, tested })
        .collect()
}

/// What differs between the two, in words for a person, or `None`.
pub fn difference(expected: &Outcome, got: &Outcome) -> Option<String> {
    let report: String = observations(expected, got).iter().map(Observation::to_string).collect();
    (!report.is_empty()).then_some(report)
}

/// How many differing lines of a stream are shown.
const SHOWN: usize = 12;

/// What differs between two streams called `name`, from the first differing line on, or `None`.
pub fn stream_difference(name: &str, expected: &[u8], got: &[u8]) -> Option<String> {
    if expected == got {
        return None;
    }
    let lines = |bytes: &[u8]| bytes.split(|&b| b == b'\n').map(|l| l.escape_ascii().to_string()).collect::<Vec<_>>();
    let (expected, got) = (lines(expected), lines(got));
    let same = expected.iter().zip(&got).take_while(|(a, b)| a == b).count();
    let tail = |lines: &[String], sign: &str| -> String {
        lines[same..].iter().take(SHOWN).map(|l| format!("    {sign} {l}\n")).collect()
    };
    Some(format!("  {name} differs from line {}:\n{}{}", same + 1, tail(&expected, "-"), tail(&got, "+")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ending;

    fn outcome(stdout: &str) -> Outcome {
        Outcome { ending: Ending::Exit(0), stdout: stdout.into(), stderr: Vec::new() }
    }

    #[test]
    fn addresses_and_replacements_are_made_equal() {
        let normaliser =
            Normaliser { addresses: true, replacements: vec![("/x/y".into(), "{tree}")], ..Default::default() };
        assert_eq!(normaliser.apply(&outcome("0x7fffdeadbeef 0x12 /x/yz")), outcome("0xADDRESS 0x12 {tree}z"));
    }

    #[test]
    fn ids_are_made_equal() {
        let normaliser = Normaliser { pids: true, ..Default::default() };
        assert_eq!(normaliser.apply(&outcome("main (123) f() (4")), outcome("main (PID) f() (4"));
    }

    #[test]
    fn order_is_made_equal() {
        let normaliser = Normaliser { order: true, ..Default::default() };
        assert_eq!(normaliser.apply(&outcome("b\na\n")), outcome("a\nb\n"));
    }

    #[test]
    fn differences_are_found() {
        assert_eq!(difference(&outcome("a\n"), &outcome("a\n")), None);
        let report = difference(&outcome("a\nb\n"), &outcome("a\nc\n")).expect("they differ");
        assert!(report.contains("line 2") && report.contains("- b") && report.contains("+ c"), "{report}");
        let ended = Outcome { ending: Ending::Signal(11), ..outcome("a\n") };
        assert!(difference(&outcome("a\n"), &ended).is_some());
    }
}
