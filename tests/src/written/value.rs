//! Numbers of a description: as they are, or as distances from a place.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// A number, or a text that stands for one: `0x7f`, `-1`, `PLACE`, `PLACE + 8`, `PLACE - OTHER`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// As it is; negative ones count from the end of the numbers.
    Number(i64),
    /// To be worked out.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// Link-time addresses by their names: symbols, tables (`.dynsym`), segments (`text`), with `.end` behind it where they end.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<String, u64>);

impl Places {
    /// Gives a place a name.
    ///
    /// # Errors
    /// Another has it.
    pub fn set(&mut self, name: &str, address: u64) -> Result<(), String> {
        match self.0.insert(name.into(), address) {
            Some(_) => Err(format!("{name}: two places with one name")),
            None => Ok(()),
        }
    }

    /// Names where something begins and where it ends.
    ///
    /// # Errors
    /// Another has the name.
    pub fn range(&mut self, name: &str, start: u64, size: u64) -> Result<(), String> {
        self.set(name, start)?;
        self.set(&format!("{name}.end"), start + size)
    }

    /// What a value stands for.
    ///
    /// # Errors
    /// It is no such expression, or names an unknown place.
    pub fn value(&self, value: &Value) -> Result<u64, String> {
        match value {
            Value::Number(number) => Ok(*number as u64),
            Value::Text(text) => self.text(text),
        }
    }

    /// The same, of a text.
    ///
    /// # Errors
    /// The same.
    pub fn text(&self, text: &str) -> Result<u64, String> {
        let mut words = text.split_whitespace();
        let first = words.next().ok_or("an empty value")?;
        let mut sum = self.word(first)?;
        while let Some(sign) = words.next() {
            let other = self.word(words.next().ok_or_else(|| format!("{text}: nothing follows {sign}"))?)?;
            sum = match sign {
                "+" => sum.wrapping_add(other),
                "-" => sum.wrapping_sub(other),
                _ => return Err(format!("{text}: {sign} is neither + nor -")),
            };
        }
        Ok(sum)
    }

    fn word(&self, word: &str) -> Result<u64, String> {
        number(word).or_else(|| self.0.get(word).copied()).ok_or_else(|| format!("{word}: no such place"))
    }
}

/// The number that a word is.
pub fn number(word: &str) -> Option<u64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    let number = match digits.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => digits.parse(),
    };
    number.ok().map(|n| if negative { n.wrapping_neg() } else { n })
}

/// The number of a word in a table, or that it is.
///
/// # Errors
/// It is neither.
pub fn named(value: &Value, table: &[(&str, u64)]) -> Result<u64, String> {
    let text = value.to_string();
    let found = table.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    found.or_else(|| number(&text)).ok_or_else(|| format!("{text:?} is none of {:?}", table.iter().map(|t| t.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_worked_out() {
        let mut places = Places::default();
        places.range("data", 0x1000, 0x20).expect("it is the first");
        for (text, value) in [("data.end - data", 0x20), ("data + 0x8", 0x1008), ("-1", u64::MAX), ("12", 12)] {
            assert_eq!(places.text(text), Ok(value), "{text}");
        }
        for wrong in ["", "nowhere", "data +", "data * 2", "0xg"] {
            assert!(places.text(wrong).is_err(), "{wrong}");
        }
        assert!(places.set("data", 0).is_err());
    }
}
